"""What the public listener lets through: the calls of a link, byte for byte."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.superlink import BODY_LIMIT, PUBLIC_CALLS, is_public, main, public_only


def scope(target: str = "/v1/fleet/pull-messages", method: str = "POST", **other: Any) -> dict[str, Any]:
    """A request as uvicorn hands it over: the path decoded, the raw one beside it."""
    raw, _, query = target.partition("?")
    return {
        "type": "http",
        "method": method,
        "path": unquote(raw),
        "raw_path": raw.encode("latin-1", "replace"),
        "query_string": query.encode(),
        "headers": [(b"content-length", b"10")],
        **other,
    }


@pytest.mark.parametrize("call", sorted(PUBLIC_CALLS))
def test_every_call_of_a_link_passes(call: bytes):
    assert is_public(scope(call.decode()))


def test_health_may_be_read_and_nothing_else_done_with_it():
    assert is_public(scope("/health", "GET"))
    assert not is_public(scope("/health", "POST"))
    assert not is_public(scope("/v1/fleet/pull-messages", "GET"))


@pytest.mark.parametrize(
    "target",
    [
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/unregister-node",
        "/v1/fleet/get-fab",
        "//v1/fleet/pull-messages",
        "//v1/control/start-run",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/%2e%2e/control/start-run",
        "/v1/fleet/pull%2Dmessages",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?x=1",
        "/v1/fleet/./pull-messages",
        "/V1/FLEET/pull-messages",
        "/v1/fleet/pull-messages;x",
        "/v1/fleet/pull-messages%00",
        "/v1\\fleet\\pull-messages",
        "http://other/v1/fleet/pull-messages",
        "",
        "*",
    ],
)
def test_no_other_spelling_passes(target: str):
    assert not is_public(scope(target))


@given(st.text(max_size=60), st.sampled_from(["GET", "POST", "PUT", "HEAD", "OPTIONS", "CONNECT"]))
def test_what_passes_is_on_the_list(target: str, method: str):
    request = scope("/v1/fleet/" + quote(target, safe="/.%?#-"), method)
    if is_public(request):
        assert request["raw_path"] in PUBLIC_CALLS


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-length", str(BODY_LIMIT + 1).encode())],
        [(b"content-length", b"-1")],
        [(b"content-length", b"1e3")],
        [(b"transfer-encoding", b"chunked")],
    ],
)
def test_a_body_without_a_bound_does_not_pass(headers: list[tuple[bytes, bytes]]):
    """Must not: let an unsigned request fill the server's memory."""
    assert not is_public(scope(headers=headers))
    assert is_public(scope(headers=[(b"content-length", str(BODY_LIMIT).encode())]))


@pytest.mark.parametrize("kind", ["websocket", "http"])
def test_what_does_not_pass_never_reaches_the_application(kind: str):
    async def inner(*_: Any) -> None:
        raise AssertionError("it got through")

    sent: list[Any] = []

    async def send(event: Any) -> None:
        sent.append(event)

    async def receive() -> Any:
        return {}

    asyncio.run(public_only(inner)(scope("/v1/control/start-run", type=kind), receive, send))
    if kind == "http":
        assert sent[0]["status"] == 404
        assert sent[1]["body"] == b""
    else:
        assert sent == [{"type": "websocket.close", "code": 1000}]


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8000", "192.0.2.1:8000", "localhost", ":80", "127.0.0.1:0", "127.0.0.1:x"]
)
def test_a_private_listener_that_others_could_reach_is_refused(address: str, capsys: pytest.CaptureFixture[str]):
    words = ["--public", "127.0.0.1:1", "--private", address]
    for name in ("certificate", "key", "ca", "database", "secret"):
        words += [f"--{name}", "x"]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "--private" in capsys.readouterr().err

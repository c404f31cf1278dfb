"""Flower's SuperLink with two listeners: sites see only what their links need; the rest stays on this host."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import ssl
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

# The calls of client/link.py, byte for byte. Registration and bundles are not among them.
PUBLIC_CALLS = frozenset(
    f"/v1/fleet/{call}".encode()
    for call in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "pull-object",
        "push-object",
        "confirm-message-received",
    )
)
HEALTH = b"/health"
BODY_LIMIT = 8 * 2**20  # bytes; Flower cuts arrays into chunks of 5 MiB
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


@dataclass(frozen=True, kw_only=True)
class Listeners:
    """Where the server listens, and the files it needs. `private` must be a loopback address."""

    private: tuple[str, int]
    public: tuple[str, int]
    certificate: Path
    key: Path
    ca: Path
    database: Path
    secret: Path


def is_public(scope: Scope) -> bool:
    """Whether the public listener passes a request on.

    Guarantee: only a POST to one of PUBLIC_CALLS with a bounded body, or a GET of /health. The path is compared
    as it came, before any decoding: `//v1`, `/../`, `%2e%2e`, another case or a query are other paths.
    """
    if scope["type"] != "http" or scope.get("query_string"):
        return False
    path = scope.get("raw_path")
    if path != scope["path"].encode("utf-8", "surrogateescape"):
        return False
    if scope["method"] == "GET":
        return bool(path == HEALTH)
    return scope["method"] == "POST" and path in PUBLIC_CALLS and _body_is_bounded(scope["headers"])


def public_only(inner: Asgi) -> Asgi:
    """`inner` as the outside sees it: everything that is not `is_public` is an empty 404."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if is_public(scope):
            await inner(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})

    return guarded


def serve(listeners: Listeners) -> None:
    """Run both listeners until SIGTERM or SIGINT; returns when they are closed."""
    app = _superlink(listeners)
    private, public = _server(app, listeners.private, listeners), _guard(app, listeners)
    with asyncio.Runner(loop_factory=private.config.get_loop_factory()) as runner:
        runner.run(_serve_both(private, public))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m server.superlink`."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("private", "public"):
        parser.add_argument(f"--{name}", required=True, type=_address, metavar="HOST:PORT")
    for name in ("certificate", "key", "ca", "database", "secret"):
        parser.add_argument(f"--{name}", required=True, type=Path, metavar="FILE")
    settings = Listeners(**vars(parser.parse_args(arguments)))
    if settings.private[0] not in ("127.0.0.1", "::1", "localhost"):
        parser.error("--private must be a loopback address: it starts runs without a password")
    os.environ.update(QUIET)
    os.umask(0o077)  # the database holds messages; only its owner reads it
    serve(settings)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to us: two of them in one loop would swallow each other's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _superlink(listeners: Listeners) -> Asgi:
    """Flower's application: node authentication, TLS, SQLite, runs in processes of their own."""
    from flwr.supercore.auth import load_superexec_auth_secret
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
    from flwr.superlink.main import create_app

    files = (listeners.ca, listeners.certificate, listeners.key)
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host=listeners.private[0],
        port=listeners.private[1],
        insecure=False,
        certificates=(files[0].read_bytes(), files[1].read_bytes(), files[2].read_bytes()),
        superexec_auth_secret=load_superexec_auth_secret(secret_file=str(listeners.secret)),
        authn_plugin=load_control_authn_plugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type="grpc-rere",
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=str(files[0]),
        ssl_certfile=str(files[1]),
        ssl_keyfile=str(files[2]),
        database=str(listeners.database),
        isolation="process",
        runtime_dependency_install=False,
    )
    app: Asgi = create_app(config, SuperLinkLifespan)
    return app


def _guard(app: Asgi, listeners: Listeners) -> _Server:
    # The private listener owns the life of the application; a second start would open the database twice.
    return _server(public_only(app), listeners.public, listeners, lifespan="off")


def _server(app: Asgi, address: tuple[str, int], listeners: Listeners, **options: Any) -> _Server:
    config = uvicorn.Config(
        app,
        host=address[0],
        port=address[1],
        ws="none",
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_keep_alive=30,
        timeout_graceful_shutdown=1,
        ssl_certfile=listeners.certificate,
        ssl_keyfile=listeners.key,
        **options,
    )
    config.load()
    if config.ssl is not None:  # it never is: both files were given
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return _Server(config)


async def _serve_both(private: _Server, public: _Server) -> None:
    """Private first, so that nobody outside reaches a server that is not ready; either's end ends both."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    tasks = [asyncio.create_task(private.serve())]
    while not private.started and not tasks[0].done():
        await asyncio.sleep(0.02)
    if private.started:
        tasks.append(asyncio.create_task(public.serve()))
    waiting = asyncio.create_task(stopping.wait())
    await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
    public.should_exit = private.should_exit = True
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    waiting.cancel()
    if not private.started or any(isinstance(outcome, BaseException) for outcome in outcomes):
        raise SystemExit(1)


def _body_is_bounded(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Signatures are checked after the body was read, so an unsigned body must not be large or endless."""
    length = dict(headers).get(b"content-length", b"")
    return length.isdigit() and int(length) <= BODY_LIMIT


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


if __name__ == "__main__":
    main()

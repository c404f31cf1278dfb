"""Frames from the coordinator to agents and back, with real processes: TLS, node keys, kills, restarts."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from common.surroundings import network_isolation
from deploy.authority import LOCAL_NAMES, found_authority, issue_server, make_node_key, make_shared_secret
from deploy.up import Federation, FederationLayout, SiteProcesses, free_address

pytestmark = [pytest.mark.story, pytest.mark.timeout(120)]

PROGRAMS = Path(__file__).parent / "transport"
ROOT = Path(__file__).parents[2]


def layout(root: Path, sites: int) -> FederationLayout:
    """A federation of echoing agents under `root`, with fresh keys."""
    server = issue_server(root / "server", found_authority(root / "authority", "echoes"), LOCAL_NAMES)
    return FederationLayout(
        folder=root / "run",
        server=server,
        secret=make_shared_secret(root / "server" / "executor.secret"),
        sites=tuple(
            SiteProcesses(
                name=f"clinic-{number}",
                settings=root / "none.toml",
                node_key=make_node_key(root / f"clinic-{number}" / "node.key").private,
                agent="echo_agent",
            )
            for number in range(1, sites + 1)
        ),
        public=free_address(),
        private=free_address(),
    )


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{PROGRAMS}")
        with Federation(layout(tmp_path_factory.mktemp("federation"), 2)) as running:
            yield running


def play(
    federation: Federation, folder: Path, steps: list[dict[str, Any]], during: Callable[[], None] | None = None
) -> list[Any]:
    """Run the steps in a coordinator of their own; `during` is called when the first one has begun."""
    from deploy.authority import read_node_key
    from deploy.fleet import make_bundle

    keys = {number: read_node_key(site.node_key).openssh for number, site in enumerate(federation.layout.sites, 1)}
    (folder / "script.json").write_text(json.dumps({"keys": keys, "steps": steps}))
    settings = {"job": str(folder / "script.json"), "state": str(folder)}
    run = federation.run(settings, make_bundle("echo_app:app"))
    if during is not None:
        until((folder / "began-0").exists, 30)
        time.sleep(0.7)  # the order is with the agents by now
        during()
    state = federation.wait(run, 60)
    assert state.ending == "completed", federation.fleet.log(run)
    answers: list[Any] = json.loads((folder / "answers.json").read_text())
    return answers


def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_frames_of_every_size_come_back_whole(federation: Federation, tmp_path: Path):
    steps = [
        {"frame": "echo hello", "to": [1, 2], "seconds": 20},
        {"frame": "echo ", "pad": 2_000_000, "to": [1, 2], "seconds": 20},
        {"frame": "size 12000000", "to": [2], "seconds": 30},
    ]
    small, large, chunked = play(federation, tmp_path, steps)
    assert small["present"] == [1, 2]
    assert {site: reply for site, (reply, _) in small["replies"].items()} == {"1": [5, "hello"], "2": [5, "hello"]}
    assert {reply[0] for reply, _ in large["replies"].values()} == {2_000_000}
    assert chunked["replies"]["2"][0] == [12_000_000, "x" * 40]
    assert small["seconds"] < 8


def test_an_agent_has_no_network_where_the_system_allows_that(federation: Federation):
    allowed = bool(network_isolation())
    assert federation.status("agent-clinic-1")["isolation"] == ("netns" if allowed else "none")


def test_a_failure_at_a_site_is_answered_at_once_without_its_text(federation: Federation, tmp_path: Path):
    steps = [{"frame": "fail", "to": [1], "seconds": 20}, {"frame": "echo on", "to": [1], "seconds": 20}]
    failed, after = play(federation, tmp_path, steps)
    assert failed["replies"]["1"][0] is None
    assert failed["seconds"] < 5
    assert after["replies"]["1"][0] == [2, "on"]
    assert "patient 17" in federation.log("agent-clinic-1")
    assert "patient" not in federation.log("link-clinic-1") + federation.log("executor") + federation.log("superlink")


def test_a_silent_site_costs_its_deadline_and_nothing_more(federation: Federation, tmp_path: Path):
    """Must: the other site's reply comes at once. Must not: the late reply turn up in the next step."""
    steps = [
        {"frame": "sleep 3", "to": [1], "seconds": 1.5},
        {"frame": "echo me", "to": [2, 7], "seconds": 10},
        {"frame": "echo back", "to": [1], "seconds": 20, "pause": 2},
    ]
    silent, other, back = play(federation, tmp_path, steps)
    assert silent["replies"]["1"][0] is None
    assert 1.4 < silent["seconds"] < 3
    assert other["replies"]["7"] == [None, pytest.approx(0, abs=0.5)]
    assert other["replies"]["2"][0] == [2, "me"]
    assert back["replies"]["1"][0] == [4, "back"]


def test_an_agent_that_is_killed_in_the_middle_of_an_order_is_reported_at_once(federation: Federation, tmp_path: Path):
    steps = [
        {"frame": "sleep 20", "to": [1], "seconds": 30},
        {"frame": "echo again", "to": [1], "seconds": 20, "pause": 3},
    ]
    agent = federation.pids()["agent-clinic-1"]
    killed, again = play(federation, tmp_path, steps, lambda: os.kill(agent, signal.SIGKILL))
    assert killed["replies"]["1"][0] is None
    assert killed["seconds"] < 8
    assert again["replies"]["1"][0] == [5, "again"]
    assert "AGENT_UNAVAILABLE" in federation.log("link-clinic-1")


def test_a_link_that_is_killed_is_back_at_once_as_the_same_node(federation: Federation, tmp_path: Path):
    """Must: its order in hand is reported. Must not: the server make it wait until the old link counts as away."""
    before = {node.name: node.number for node in federation.fleet.nodes()}
    steps = [
        {"frame": "sleep 6", "to": [2], "seconds": 30},
        {"frame": "echo again", "to": [2], "seconds": 20, "pause": 4},
    ]
    link = federation.pids()["link-clinic-2"]
    lost, again = play(federation, tmp_path, steps, lambda: os.kill(link, signal.SIGKILL))
    assert lost["replies"]["2"][0] is None
    assert lost["seconds"] < 10
    assert again["replies"]["2"][0] == [5, "again"]
    assert {node.name: node.number for node in federation.fleet.nodes()} == before


def test_a_run_survives_a_server_that_is_killed(federation: Federation, tmp_path: Path):
    steps = [
        {"frame": "sleep 4", "to": [1, 2], "seconds": 40},
        {"frame": "echo on", "to": [1, 2], "seconds": 20},
    ]
    server = federation.pids()["superlink"]
    during, after = play(federation, tmp_path, steps, lambda: os.kill(server, signal.SIGKILL))
    assert [reply for reply, _ in during["replies"].values()] == [[1, "4"], [1, "4"]]
    assert [reply for reply, _ in after["replies"].values()] == [[2, "on"], [2, "on"]]
    assert federation.pids()["superlink"] != server


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/list-nodes",
        "/v1/runtime/acquire-task",
        "/v1/fleet/register-node",
        "/v1/fleet/get-fab",
        "//v1/control/list-nodes",
        "/v1/fleet/../control/list-nodes",
        "/v1/fleet/%2e%2e/control/list-nodes",
        "/V1/fleet/pull-messages",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/pull-messages?x",
        "/v1/fleet/pull-messages%00",
        "/docs",
        "/openapi.json",
        "/",
    ],
)
def test_the_public_port_answers_an_outsider_with_nothing(federation: Federation, path: str):
    host, _, port = federation.layout.public.partition(":")
    trust = ssl.create_default_context(cafile=str(federation.layout.server.ca))
    request = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/protobuf\r\nContent-Length: 0\r\n"
    with (
        socket.create_connection((host, int(port)), timeout=5) as raw,
        trust.wrap_socket(raw, server_hostname=host) as line,
    ):
        line.sendall(f"{request}Connection: close\r\n\r\n".encode())
        answer = b"".join(iter(partial(line.recv, 4096), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 404 ")
    assert body == b""


def test_a_fleet_call_without_a_node_key_is_refused(federation: Federation):
    trust = ssl.create_default_context(cafile=str(federation.layout.server.ca))
    url = f"https://{federation.layout.public}/v1/fleet/pull-messages"
    answer = httpx.post(url, content=b"", headers={"content-type": "application/protobuf"}, verify=trust)
    assert answer.status_code == 401


def join(federation: Federation, folder: Path, key: Path, ca: Path, seconds: float = 30) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "client.link", "--superlink", federation.layout.public, "--ca", str(ca)]
    command += ["--key", str(key), "--agent", str(folder / "none.sock"), "--state", str(folder), "--patience", "1"]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def test_a_server_of_another_authority_is_not_trusted(federation: Federation, tmp_path: Path):
    other = found_authority(tmp_path / "other", "impostors")
    key = make_node_key(tmp_path / "node.key").private
    link = join(federation, tmp_path, key, other.certificate)
    _, said = link.communicate(timeout=30)
    assert link.returncode == 3
    assert "CERTIFICATE_INVALID" in said
    assert json.loads((tmp_path / "link.json").read_text())["error"] == "CERTIFICATE_INVALID"


def test_a_key_that_was_never_admitted_is_refused(federation: Federation, tmp_path: Path):
    key = make_node_key(tmp_path / "node.key").private
    link = join(federation, tmp_path, key, federation.layout.server.ca)
    _, said = link.communicate(timeout=30)
    assert link.returncode == 3
    assert "KEY_REFUSED" in said


def test_a_key_that_is_revoked_is_out_and_a_link_told_to_stop_leaves_at_once(federation: Federation, tmp_path: Path):
    leaving, revoked = (make_node_key(tmp_path / name / "node.key") for name in ("leaving", "revoked"))
    for key in (leaving, revoked):
        federation.fleet.admit(key.public, "guest")
    links = [
        join(federation, key.private.parent, key.private, federation.layout.server.ca) for key in (leaving, revoked)
    ]

    def online(*keys: bytes) -> bool:
        return {node.public for node in federation.fleet.nodes() if node.online} >= set(keys)

    until(partial(online, leaving.public, revoked.public), 30)
    federation.fleet.revoke(revoked.public)
    links[0].terminate()
    links[0].communicate(timeout=5)
    assert links[0].returncode == 0
    assert not online(leaving.public)
    _, said = links[1].communicate(timeout=30)
    assert links[1].returncode == 3
    assert "KEY_REFUSED" in said


def test_nothing_is_left_when_the_parent_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{PROGRAMS}")
    code = "; ".join(
        (
            "import sys, json, pathlib",
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
            "from test_transport import layout, play, Federation",
            f"folder = pathlib.Path({str(tmp_path)!r})",
            "running = Federation(layout(folder, 1)).start()",
            "say = lambda: print(json.dumps(running.pids()), flush=True)",
            "play(running, folder, [{'frame': 'sleep 50', 'to': [1], 'seconds': 50}], say)",
        )
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = json.loads(parent.stdout.readline())
    assert set(pids) == {"superlink", "executor", "agent-clinic-1", "link-clinic-1"}
    children = psutil.Process(parent.pid).children(recursive=True)
    assert "flwr-serverapp" in {child.name() for child in children}
    parent.kill()
    parent.communicate()
    until(lambda: not any(alive(child) for child in children), 5)


def alive(process: psutil.Process) -> bool:
    """Not merely unreaped."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False

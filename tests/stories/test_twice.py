"""The same thing started twice: the second one is refused at once, and the first never notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from client.keystore import SqliteKeyStore
from simulations.demo import Deployment, deploy
from tests.stories.stage import scenario_of, until

pytestmark = [pytest.mark.story, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deploy(scenario_of(), tmp_path_factory.mktemp("twice") / "federation")


def started(*words: str) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["hushfed", *words, "--json"], env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True
    )


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


def refused(*words: str) -> dict[str, Any]:
    """The refusal with which a command ends by itself."""
    process = started(*words)
    try:
        assert process.wait(40) == 3
    finally:
        process.kill()
    found: dict[str, Any] = said(process)["refusal"]
    return found


@pytest.fixture(scope="module")
def server(made: Deployment) -> Iterator[subprocess.Popen[str]]:
    process = started("fed", "up", str(made.folder.root), "--server-only")
    try:
        assert said(process)["status"] == "running"
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0


@pytest.fixture(scope="module")
def site(made: Deployment, server: subprocess.Popen[str]) -> tuple[str, ...]:
    """The words that start the first site."""
    public = json.loads((made.layout.folder / "addresses.json").read_text())["public"]
    return "site", "up", str(made.folder.sites[0].settings), "--superlink", public


def test_a_federation_that_is_up_is_not_started_again(made: Deployment, server: subprocess.Popen[str]):
    """Must: name the process, and leave the addresses of the first as they were. Must not: loop, or try its ports."""
    addresses = made.layout.folder / "addresses.json"
    before = addresses.read_bytes()
    for words in ((), ("--server-only",), ("--public", "127.0.0.1:18555", "--private", "127.0.0.1:18556")):
        told = refused("fed", "up", str(made.folder.root), *words)
        assert told["code"] == "ALREADY_RUNNING"
        assert f"process {server.pid}" in told["why"]
    assert addresses.read_bytes() == before
    assert server.poll() is None


def test_a_port_of_another_federation_is_refused_with_who_has_it(
    server: subprocess.Popen[str], made: Deployment, tmp_path: Path
):
    other = deploy(scenario_of(), tmp_path / "other")
    taken = json.loads((made.layout.folder / "addresses.json").read_text())
    for option in ("public", "private"):
        told = refused("fed", "up", str(other.folder.root), f"--{option}", taken[option])
        assert told["code"] == "ALREADY_RUNNING"
        assert told["what"] == f"--{option} {taken[option]} not used"


def test_a_site_that_is_up_is_not_started_again_until_it_is_gone(made: Deployment, site: tuple[str, ...]):
    """Must: refuse before anything of the second runs, and start anew after a kill. Must not: disturb the first."""
    run = made.folder.sites[0].root / "state" / "run"
    first = started(*site)
    try:
        pids = said(first)["processes"]
        link = json.loads((run / "link" / "link.json").read_text())
        told = refused(*site)
        assert told["code"] == "ALREADY_RUNNING"
        assert f"process {first.pid}" in told["why"]
        assert json.loads((run / "link" / "link.json").read_text())["joined"] == link["joined"]
        assert all(psutil.pid_exists(pid) for pid in pids.values())
        told = refused("fed", "up", str(deployed_beside(made)))
        assert f"process {first.pid}" in told["why"]
    finally:
        first.kill()
    first.wait()
    again = started(*site)
    try:
        assert said(again)["status"] == "joined"
    finally:
        again.send_signal(signal.SIGINT)
        assert again.wait(40) == 0


def deployed_beside(made: Deployment) -> Path:
    """Another federation's folder on this host that holds the same site."""
    other = made.folder.root.parent / "beside"
    if not other.exists():
        (other / "sites").mkdir(parents=True)
        for name in ("coordinator", "authority"):
            (other / name).symlink_to(made.folder.root / name)
        place = made.folder.sites[0].root
        (other / "sites" / place.name).symlink_to(place)
    return other


@pytest.mark.parametrize("process", ["agent", "link"])
def test_one_process_of_a_site_is_not_started_beside_the_same_one(
    made: Deployment, site: tuple[str, ...], process: str, tmp_path: Path
):
    """Must not: overwrite what the running one says of itself."""
    place = made.folder.sites[0].root
    run, program = place / "state" / "run" / process, [sys.executable, "-m", f"client.{process}"]
    words = {
        "agent": ["--site", place / "site.toml", "--socket", tmp_path / "s", "--status", run / "agent.json"],
        "link": ["--superlink", site[-1], "--ca", place / "ca.crt", "--key", place / "node.key", "--state", run],
    }
    first = started(*site)
    try:
        assert said(first)["status"] == "joined"
        before = json.loads((run / f"{process}.json").read_text())["pid"]
        more = ["--agent", tmp_path / "s"] if process == "link" else []
        second = subprocess.run(
            [*program, *map(str, [*words[process], *more])], capture_output=True, text=True, check=False, timeout=40
        )
        assert second.returncode == 3
        assert f"process {before}" in second.stderr
        assert json.loads((run / f"{process}.json").read_text())["pid"] == before
    finally:
        first.send_signal(signal.SIGINT)
        assert first.wait(40) == 0


def test_a_site_whose_keys_are_held_ends_with_that_refusal(made: Deployment, site: tuple[str, ...]):
    """Must: end, with the agent's own words. Must not: start a link that has no agent."""
    run = made.folder.sites[0].root / "state" / "run"
    store = SqliteKeyStore.open(made.folder.sites[0].root / "state")
    try:
        assert refused(*site)["code"] == "KEYS_LOCKED"
        assert not (run / "link" / "link.json").exists()
    finally:
        store.close()


def test_a_site_whose_agent_later_refuses_does_not_go_on_as_a_link_alone(made: Deployment, site: tuple[str, ...]):
    place = made.folder.sites[0].root
    policy = place / "policy.toml"
    sound = policy.read_text()
    first = started(*site)
    try:
        agent = said(first)["processes"]["agent"]
        policy.write_text("unknown = 1\n" + sound)
        os.kill(agent, signal.SIGKILL)
        until(lambda: first.poll() is not None, 60)
        assert first.returncode == 3
        assert said(first)["refusal"]["code"] == "CONFIG_INVALID"
    finally:
        policy.write_text(sound)
        first.kill()

"""A federation that is told to stop while it starts, and one of whose sites will not run again: both start anew."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from client.site import read_site
from simulations.demo import Deployment, deploy
from tests.stories.stage import scenario_of, until

pytestmark = [pytest.mark.story, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    return deploy(scenario_of(), tmp_path_factory.mktemp("interrupts") / "federation")


def started(*words: str) -> subprocess.Popen[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(
        ["hushfed", *words, "--json"], env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("who", ["fed", "site"])
def test_a_start_that_is_interrupted_ends_with_130_and_leaves_nothing(made: Deployment, who: str, number: int):
    settings = made.folder.sites[0].settings
    words = ("fed", "up", str(made.folder.root))
    if who == "site":
        words = ("site", "up", str(settings), "--superlink", "127.0.0.1:9")
    process = started(*words)
    until(lambda: bool(psutil.Process(process.pid).children(recursive=True)), 60)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    assert process.wait(30) == 130
    assert process.stdout is not None
    assert json.loads(process.stdout.read().splitlines()[-1]) == {"status": "interrupted"}
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    folders = [made.layout.folder, settings.parent / "state" / "run"]
    assert not [path for folder in folders for path in folder.glob("hushfed-*")]


def test_a_federation_starts_after_an_interrupted_start_and_every_keeper_sees_it(made: Deployment):
    """Must: show the site's processes to its keeper, started by whom ever. Must not: call a killed one joined."""
    process = started("fed", "up", str(made.folder.root))
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["manifest"] == made.folder.manifest.digest.hex()
        status = started("site", "status", str(made.folder.sites[0].settings)).communicate(timeout=60)[0]
        assert json.loads(status)["status"] == "joined"
        assert json.loads(status)["manifest"] == told["manifest"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    status = started("site", "status", str(made.folder.sites[0].settings)).communicate(timeout=60)[0]
    assert json.loads(status)["status"] == "away"


def test_a_site_that_will_not_run_again_is_said_and_the_others_go_on(made: Deployment, tmp_path: Path):
    """Must: name it where `fed up` runs and to its keeper, also after its next start. Must not: end the federation."""
    site, said = made.folder.sites[1], tmp_path / "said"
    manifest = Path(read_site(site.settings).federation.manifest)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with said.open("w") as errors:
        process = subprocess.Popen(
            ["hushfed", "fed", "up", str(made.folder.root), "--json"],
            env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        agent = json.loads(process.stdout.readline())["processes"][f"agent-{site.name}"]
        manifest.rename(manifest.with_suffix(".away"))
        os.kill(agent, signal.SIGKILL)
        until(lambda: "does not run" in said.read_text(), 60)
        assert f"agent-{site.name}" in " ".join(said.read_text().split())
        time.sleep(1.0)
        assert process.poll() is None
        assert said.read_text().count("does not run") == 1
    finally:
        manifest.with_suffix(".away").rename(manifest)
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    status = started("site", "status", str(site.settings)).communicate(timeout=60)[0]
    assert json.loads(status)["agent"]["last_refusal"]["code"] == "FILE_MISSING"
    process = started("fed", "up", str(made.folder.root))
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["status"] == "running"
        status = started("site", "status", str(site.settings)).communicate(timeout=60)[0]
        agent = json.loads(status)["agent"]
        assert agent["last_refusal"]["code"] == "FILE_MISSING"
        assert agent["last_refusal"]["when"] < agent["since"]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0

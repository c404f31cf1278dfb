"""Peers of bench simulate: they are left the very work, all their processes count, and nothing of them stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import Code, Refusal
from common.parameters import flatten
from simulations.bench import simulate_peers
from simulations.bench.peers import environments
from simulations.bench.peers.environments import PEERS, Peer, left_for, played
from simulations.bench.peers.networks import NETWORKS
from simulations.bench.peers.peer_work import TAG, PeerWork
from simulations.bench.simulate_chart import draw
from simulations.bench.simulate_rows import SimulationRow
from simulations.bench.simulate_scaling import _measured, wide
from simulations.bench.simulate_works import WORKS, bare, population

SMALL = {name: replace(each, population=6, cohort=4, records=14, batch=5) for name, each in WORKS.items()}
SCRIPT = """
import subprocess, sys
from pathlib import Path
from networks import NETWORKS
from peer_work import Clock, PeerWork, tell

work = PeerWork(Path(sys.argv[1]))
model, clock = work.begin(NETWORKS[work.start.numel()]()), Clock()
before = work.loss(model)
subprocess.Popen(["sleep", "600"], start_new_session=True)
{body}
"""
LEARNS = """
clock.tick()
for _ in range(work.rounds):
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"])
    for site in range(work.cohort):
        work.train(model, site)
    clock.tick()
tell(clock, before, work.loss(model))
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return left_for(SMALL["W2"], population(SMALL["W2"]), 3, tmp_path / "rounds")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of scripts, with one of a test in it."""
    place = tmp_path / "scripts"
    shutil.copytree(environments.HERE, place)
    monkeypatch.setattr(environments, "HERE", place)
    return place


def scripted(here: Path, body: str) -> Peer:
    (here / "own_rounds.py").write_text(SCRIPT.format(body=body))
    return Peer("a peer", (), "own_rounds.py", local=False)


def tagged() -> list[int]:
    return [int(p.parent.name) for p in Path("/proc").glob("[0-9]*/environ") if TAG.encode() in readable(p)]


def readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize("name", ["W1", "W2"])
def test_what_a_peer_is_left_is_the_work_of_the_bare_loop(name: str, tmp_path: Path) -> None:
    data = population(SMALL[name])
    work = PeerWork(left_for(SMALL[name], data, 2, tmp_path))
    assert (work.population, work.cohort, work.batch, work.rounds, work.local) == (6, 4, 5, 2, False)
    whole = np.zeros(work.start.numel())
    for site in (0, 3):
        model = work.begin(NETWORKS[work.start.numel()]())
        work.train(model, site)
        whole += flatten(model).astype(np.float64) - work.start.numpy()
    right = bare(SMALL[name], data)(work.start.numpy(), [0, 3])
    assert np.linalg.norm(whole - right) <= 1e-5 * np.linalg.norm(right)


def test_all_processes_of_a_peer_count_and_none_is_left(files: Path, here: Path) -> None:
    """Must: count a child that has ended, and end a daemon."""
    found = played(scripted(here, LEARNS), Path(sys.executable), files)
    assert len(found.rounds) == 2
    assert found.first > min(found.rounds) > 0.05  # most of it the child's
    assert found.peak_mb > 0
    end = time.monotonic() + 10
    while tagged() and time.monotonic() < end:
        time.sleep(0.1)
    assert not tagged()


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("tell(clock, before, before)", "it did other work"),
        ("tell(clock, before, float('nan'))", "it did other work"),
        ("raise SystemExit('out of luck')", "out of luck"),
        ("", "no message"),
    ],
)
def test_a_peer_without_a_result_is_refused(files: Path, here: Path, body: str, why: str) -> None:
    with pytest.raises(Refusal, match=why) as refused:
        played(scripted(here, body), Path(sys.executable), files)
    assert refused.value.code is Code.PROCESS_FAILED


def test_an_environment_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], what: str) -> str:
        asked.append(command)
        (tmp_path / "pfl").mkdir(exist_ok=True)
        return ""

    monkeypatch.setattr(environments, "_run", run)
    python = environments.built(PEERS["pfl"], tmp_path)
    assert python == tmp_path / "pfl" / "bin" / "python"
    assert [command[-1] for command in asked] == [str(tmp_path / "pfl"), environments.TORCH, "pfl==0.6.0"]
    assert environments.built(PEERS["pfl"], tmp_path) == python
    assert len(asked) == 3


def test_an_environment_that_cannot_be_built_is_refused_and_tried_again(tmp_path: Path) -> None:
    nobody = Peer("nobody", ("no-such-package-of-anybody==0.0.0",), "nobody_rounds.py", local=False)
    (tmp_path / "nobody" / "bin").mkdir(parents=True)
    (tmp_path / "nobody" / "bin" / "python").symlink_to("/bin/false")
    with pytest.raises(Refusal) as refused:
        environments._run([str(tmp_path / "nobody" / "bin" / "python")], "Environment of nobody not built")
    assert refused.value.code is Code.PROCESS_FAILED
    assert not (tmp_path / "nobody" / ".installed").exists()
    assert nobody.packages


def test_rows_of_peers_stand_beside_the_bare_loop(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = scripted(here, LEARNS)
    monkeypatch.setattr(simulate_peers, "WORKS", SMALL)
    monkeypatch.setattr(simulate_peers, "PEERS", {"own": peer})
    monkeypatch.setattr(simulate_peers, "built", lambda *_: Path(sys.executable))
    threads = torch.get_num_threads()
    [row] = simulate_peers.measure_peers("W2", tmp_path / "peers", 2, lambda *_: None)
    assert (row.engine, row.repeats, torch.get_num_threads()) == ("a peer", 2, threads)
    assert row.ratio_floor > 0
    assert list((tmp_path / "peers").iterdir()) == []
    assert simulate_peers.peers_of("W1-LDP") == []
    svg = draw([row, replace(row, engine="dual", peak_mb=None)])
    assert svg.count("<circle") == 2
    assert "a peer" in svg


def test_a_point_of_a_curve_is_a_round_of_so_many_sites_and_parameters() -> None:
    assert sum(p.numel() for p in wide(10**6).parameters()) == pytest.approx(10**6, rel=0.01)
    row = _measured("sites", replace(SMALL["W2"], population=3, cohort=7), 2)
    assert (row.sites, row.parameters, row.engine) == (7, 50_890, "dual")
    assert row.cpu_microseconds_per_site == pytest.approx(1e6 * row.cpu_seconds_per_round / 7)
    other = replace(row, sites=700)
    svg = draw([], [row, other])
    assert svg.count("<circle") == 2
    assert "NaN" not in svg.lower().replace("nan", "NaN")
    assert isinstance(SimulationRow.__doc__, str)


def test_the_scripts_of_peers_are_valid_and_import_nothing_of_ours() -> None:
    for peer in PEERS.values():
        source = (Path(environments.__file__).parent / peer.script).read_text()
        compile(source, peer.script, "exec")
        assert not any(f"from {ours}" in source for ours in ("common", "client", "server", "simulations", "deploy"))
    environment = {**os.environ, "PYTHONPATH": ""}
    place = Path(environments.__file__).parent
    command = (
        "import networks, peer_work, sys; print([m for m in sys.modules if m.startswith(('common','simulations'))])"
    )
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(place)!r}); {command}"],
                          capture_output=True, text=True, check=True, env=environment)  # fmt: skip
    assert done.stdout.strip() == "[]"

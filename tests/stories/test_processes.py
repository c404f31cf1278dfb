"""Kills and silences in the middle of a round and what the ledgers say then; the same bits as in one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.errors import Refusal
from common.privacy.chain import verify_public
from common.privacy.entries import Kind
from deploy.up import Federation
from server.coordinator import RunSettings, run
from simulations.agents import Agents
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from simulations.course import Course
from simulations.demo import Deployment, play
from simulations.faults import FaultSettings
from simulations.local_sites import LocalSites
from simulations.world import simulate
from tests.stories.stage import (
    Act,
    act,
    alive,
    back_again,
    coordinator_of,
    in_training,
    kill,
    ledger_of,
    perform,
    reservations,
    rounds_of,
    run_of,
    scenario_of,
    set_up,
    site_of,
    spent_by,
    until,
)

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]

ROUNDS = 8
SITES = ("clinic-a", "clinic-b", "clinic-c", "clinic-d")
REPLAYED = scenario_of('job.privacy.noise="replay"', "job.aggregation.deadline_seconds=60.0")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Four sites whose policies allow rehearsals too."""
    return set_up(REPLAYED, tmp_path_factory.mktemp("federation"), limit=900.0, agent="held_agent")


@pytest.fixture(scope="module")
def federation(made: Deployment, programs: None) -> Iterator[Federation]:
    with Federation(made.layout) as running:
        yield running


@pytest.fixture(scope="module")
def battered(federation: Federation, made: Deployment) -> Act:
    """A run in which an agent, a link and the server are killed, each while a site is in the middle of training."""
    played = act(made, "battered", scenario_of(f"job.rounds={ROUNDS}", "job.privacy.spare_rounds=8"))
    victims: dict[int, tuple[str, str]] = {
        1: ("clinic-d", "agent-clinic-d"),
        2: ("clinic-c", "link-clinic-c"),
        4: ("clinic-b", "superlink"),
    }
    before = federation.pids()

    def strike(row: dict[str, Any]) -> None:
        if row["round"] in victims:
            site, process = victims[row["round"]]
            with in_training(site_of(made, site)):
                kill(federation, process)

    perform(federation, played, strike)
    for _, process in victims.values():
        until(back_again(federation, process, before), 30)
    return played


def test_a_run_survives_the_kill_of_an_agent_a_link_and_the_server(battered: Act):
    """Must: give every round once, and name the site that was lost. Must not: end the run."""
    rows = rounds_of(battered.state / "result")
    assert [row["round"] for row in rows] == list(range(1, ROUNDS + 1))
    assert all(len(row["sites"]) >= 3 for row in rows)
    lost = {(refusal["site"], refusal["code"]) for row in rows for refusal in row["refusals"]}
    assert ("clinic-d", "SITE_UNREACHABLE") in lost
    assert run_of(battered.state / "result")["status"] == "completed"


def test_sites_that_were_killed_take_part_again(battered: Act):
    rows = rounds_of(battered.state / "result")
    for site in ("clinic-c", "clinic-d"):
        away = next(row["round"] for row in rows if {"site": site, "code": "SITE_UNREACHABLE"} in row["refusals"])
        assert any(site in row["sites"] for row in rows if row["round"] > away)


def test_what_a_killed_agent_was_charged_stays_charged(battered: Act, made: Deployment):
    """Must: keep the charge of the round in which it died, settled by nothing. Must not: hold less than was told."""
    told = run_of(battered.state / "result")
    entries = ledger_of(site_of(made, "clinic-d"))
    settled = {entry.reserve for entry in entries if entry.kind is Kind.SETTLE}
    assert [entry for entry in reservations(entries, told["run"]) if entry.seq not in settled]
    assert spent_by(entries) >= told["heads"]["clinic-d"]["epsilon"] - 1e-3


def test_every_ledger_verifies_and_the_audit_of_a_battered_run_passes(battered: Act, made: Deployment):
    result = battered.state / "result"
    told = run_of(result)
    for site in made.folder.manifest.sites:
        assert verify_public((result / "ledgers" / f"{site.name}.jsonl").read_bytes(), site.identity)
        assert spent_by(ledger_of(site_of(made, site.name))) >= told["heads"][site.name]["epsilon"] - 1e-3
    found = audit(read_run(result))
    assert found["findings"] == []
    assert found["verified"]


class Struck(Exception):
    """The coordinator is gone."""


@pytest.fixture(scope="module")
def resumed(federation: Federation, made: Deployment, battered: Act) -> tuple[Act, list[dict[str, Any]]]:
    """A run whose coordinator was killed in the middle of a round and that was resumed; with its rounds until then."""
    played = act(made, "resumed", scenario_of("job.rounds=5"))
    before: list[dict[str, Any]] = []

    def strike(row: dict[str, Any]) -> None:
        before.append(row)
        if row["round"] == 2:
            with in_training(site_of(made, "clinic-a")):
                victim = coordinator_of(federation)
                victim.kill()
                until(lambda: not alive(victim), 20)
            raise Struck

    with pytest.raises(Struck):
        perform(federation, played, strike)
    play(federation, played, lambda _row: None, resume=True, seconds=200)
    return played, before


def test_a_killed_coordinator_resumes_from_the_last_whole_round(resumed: tuple[Act, list[dict[str, Any]]]):
    """Must: keep the finished rounds as they were. Must not: play one of them again."""
    played, before = resumed
    rows = rounds_of(played.state / "result")
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[: len(before)] == before


def test_resuming_neither_loses_epsilon_nor_charges_a_finished_round_again(
    resumed: tuple[Act, list[dict[str, Any]]], made: Deployment
):
    played, before = resumed
    told = run_of(played.state / "result")
    for name in SITES:
        entries = ledger_of(site_of(made, name))
        charged = [entry.facts.round for entry in reservations(entries, told["run"]) if entry.facts]
        for row in before:
            assert charged.count(row["round"]) == (name in row["sites"])
        assert spent_by(entries) >= told["heads"][name]["epsilon"] - 1e-3
        recorded = (played.state / "result" / "ledgers" / f"{name}.jsonl").read_bytes()
        public = next(site.identity for site in made.folder.manifest.sites if site.name == name)
        assert spent_by(verify_public(recorded, public)) == pytest.approx(told["heads"][name]["epsilon"], abs=5e-3)
    charged = reservations(ledger_of(site_of(made, "clinic-a")), told["run"])
    interrupted = [entry for entry in charged if entry.facts and entry.facts.round == 3]
    assert len(interrupted) == 2  # the round that was cut, and the same round again
    found = audit(read_run(played.state / "result"))
    assert found["findings"] == []


def test_a_run_that_is_not_resumed_is_not_overwritten(resumed: tuple[Act, Any]):
    played, _ = resumed
    result = played.state / "result"
    before = {path: path.read_bytes() for path in result.rglob("*") if path.is_file()}
    settings = RunSettings(federation=played.folder.coordinator, job=played.job, state=played.state)
    with pytest.raises(Refusal, match="it holds a run already"):
        run(LocalSites(Agents(()), Course(FaultSettings(), 0, played.folder.manifest)), settings)
    assert {path: path.read_bytes() for path in result.rglob("*") if path.is_file()} == before


def test_a_site_that_never_answers_costs_a_deadline_and_comes_back(federation: Federation, made: Deployment):
    """Must: close the round with the others, also where the silent site had to unmask. Must not: wait for ever."""
    played = act(made, "silent", scenario_of("job.rounds=9", "job.aggregation.deadline_seconds=6.0"))
    agent = psutil.Process(federation.pids()["agent-clinic-d"])

    def strike(row: dict[str, Any]) -> None:
        if row["round"] == 1:
            agent.suspend()
        elif "clinic-d" not in row["sites"]:
            agent.resume()

    try:
        perform(federation, played, strike)
    finally:
        agent.resume()
    rows = rounds_of(played.state / "result")
    assert [row["round"] for row in rows] == list(range(1, 10))
    missed = next(row for row in rows if "clinic-d" not in row["sites"])
    assert {"site": "clinic-d", "code": "SITE_UNREACHABLE"} in missed["refusals"]
    assert missed["sites"] == ["clinic-a", "clinic-b", "clinic-c"]
    assert any("clinic-d" in row["sites"] for row in rows if row["round"] > missed["round"])
    assert audit(read_run(played.state / "result"))["findings"] == []


def test_replayed_noise_gives_the_same_model_over_processes_as_in_one_process(
    federation: Federation, made: Deployment, tmp_path: Path
):
    """Must: agree in every bit, after every round. Must not: be sold as private."""
    played = act(made, "replayed", REPLAYED)
    perform(federation, played)
    world = simulate(REPLAYED, tmp_path / "world").record
    real = played.state / "result"
    assert (real / "model.safetensors").read_bytes() == (world / "model.safetensors").read_bytes()
    models = sorted((played.state / "history").glob("*.f32"))
    assert len(models) == 4
    for model in models:
        assert model.read_bytes() == (world.parent / "history" / model.name).read_bytes()
    assert run_of(real)["evaluation"] == run_of(world)["evaluation"]
    shown = ("round", "sites", "noisy_loss", "noisy_accuracy", "loss", "accuracy")
    for one, other in zip(rounds_of(real), rounds_of(world), strict=True):
        assert {name: one[name] for name in shown} == {name: other[name] for name in shown}
    assert audit(read_run(real))["problems"] == ["NOISE_REPLAY"]

"""Runs whose unit of privacy is the site: who adds noise, how the clip follows, whose turn it is, what is claimed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import server.site_level
from common.errors import Refusal
from common.messages import AnyReply, Reported
from common.privacy.chain import verify_public
from common.privacy.entries import Kind
from common.secagg.codec import Sum
from common.secagg.manifest import Manifest, SiteEntry
from common.work import Work, work_of
from server.aggregation import Part
from server.checkpoints import State, load_checkpoint
from server.coordinator import run_job
from server.job import prepared
from server.own_ledger import own_ledger
from server.reach import Asked
from server.site_level import due, site_updates
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from tests.secagg_federation import RULES, signer
from tests.server.test_coordinator import Killed
from tests.worlds import Desk, Lines, close, code_of, desk_of, questions_of, scenario, settings_of

SITE = {"unit": "site", "epsilon": 8.0, "delta": 1e-4, "clip": 0.5, "spare_rounds": 2, "evaluation_epsilon": 3.0}
MODES: dict[str, dict[str, Any]] = {"M3": {}, "M4": {"colluding": 1}, "M5": {"separation": 2}}
LOCAL = {"epsilon": 8.0, "clip": 1.0, "sampling_rate": 0.5}


def changes(mode: str, noise: str = "system", **privacy: Any) -> dict[str, Any]:
    return {
        "job.privacy": {"mode": mode, **SITE, **MODES[mode], **privacy, "noise": noise},
        "job.training.local_steps": 3,
        "job.training.learning_rate": 0.5,
        "job.aggregation.strategy": "fedavg",
        "job.aggregation.quorum": 2,
        "job.rounds": 4,
        "world.partition.sites": 5,
        "world.partition.minimum": 20,
    }


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Callable[..., Desk]]:
    made: list[Desk] = []

    def build(mode: str, noise: str = "system", **privacy: Any) -> Desk:
        made.append(desk_of(scenario("M2", changes(mode, noise, **privacy)), tmp_path / str(len(made))))
        return made[-1]

    yield build
    for desk in made:
        close(desk)


def played(desk: Desk) -> tuple[State, dict[str, Any]]:
    state = run_job(desk.work, Asked(questions_of(desk)), settings_of(desk))
    return state, audit(read_run(settings_of(desk).result))


def crowd(count: int, mode: str = "M3", **privacy: Any) -> Work:
    """The work of a job among so many sites that are not there."""
    sites = tuple(
        SiteEntry(id=i, name=f"s{i}", org=f"o{i % 7}", identity=signer(i).public, node=f"ecdsa {i}", nominal_records=40)
        for i in range(1, count + 1)
    )
    manifest = Manifest(
        federation="many", version=1, coordinator=signer("c").public, sites=sites, unmaskers=(1, 2, 3),
        rules=replace(RULES, sites_max=count),
    )  # fmt: skip
    made = scenario("M2", {**changes(mode, **privacy), "job.model": {"name": "mlp", "settings": {"hidden": [64]}}})
    return work_of(prepared(made.job, manifest), manifest)


def part(work: Work, vectors: np.ndarray) -> Part:
    """The sum of these sites' lanes, in units of the clip."""
    lanes = np.rint(vectors * work.training.scale).sum(axis=0).astype(np.int64)
    return Part(tuple(range(1, len(vectors) + 1)), Sum(len(vectors), lanes, np.zeros(0, np.int64)))


@pytest.mark.parametrize("mode", MODES)
def test_a_run_claims_its_epsilon_for_one_site_and_the_audit_agrees(federation: Callable[..., Desk], mode: str) -> None:
    desk = federation(mode)
    state, found = played(desk)
    assert (found["verdict"], found["unit"], found["mode"]) == ("PASS", "site", mode)
    assert 0 < found["epsilon"] <= 8
    assert found["limit"] == 8
    assert "differential privacy for one site (add or remove one)" in found["claims"][0]
    trusted = "nothing is claimed against the coordinator" in found["claims"][0]
    assert trusted is (mode != "M4")
    assert "Held-out records" in found["claims"][0]
    assert {len(row["sites"]) for row in state.rounds} == ({2, 3} if mode == "M5" else {5})


def test_two_layers_are_two_claims_with_two_units(federation: Callable[..., Desk]) -> None:
    _, found = played(federation("M4", local=LOCAL))
    assert (found["verdict"], found["unit"], found["mode"]) == ("PASS", "site", "M4")
    claim = found["claims"][0]
    assert "for one site (add or remove one), all its training records together" in claim
    assert "Training records: (" in claim
    assert "figures of different units are never added" in claim
    assert {*found["sites"][0]["this_run"]} == {"train", "holdout", "site"}


def test_without_the_coordinators_noise_its_model_would_be_another(
    federation: Callable[..., Desk], monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy, _ = played(federation("M3", "replay"))
    again, _ = played(federation("M3", "replay"))
    assert np.array_equal(noisy.parameters, again.parameters)
    monkeypatch.setattr(server.site_level, "integer_noise", lambda plan, _: np.zeros(plan.dimension, np.int64))
    bare, _ = played(federation("M3", "replay"))
    assert not np.allclose(noisy.parameters, bare.parameters, atol=1e-3)


@pytest.mark.parametrize("mode", ["M3", "M5"])
def test_the_coordinator_accounts_for_every_sum_that_it_noised(federation: Callable[..., Desk], mode: str) -> None:
    """Must: be missed when a line, or all of it, is gone. Must not: begin anew with the next run."""
    desk = federation(mode)
    played(desk)
    folder = settings_of(desk).result
    file = folder / "coordinator.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    entries = verify_public(b"".join(lines), desk.work.manifest.coordinator)
    assert [entry.kind for entry in entries] == [Kind.OPEN, *[Kind.RESERVE, Kind.SETTLE] * 4]
    assert {entry.plan for entry in entries if entry.plan} == {desk.work.training}
    for content, problem in (
        (b"".join(lines[:-2]), "ENTRY_MISSING"),
        (b"".join(lines[:3] + lines[4:]), "CHAIN_BROKEN"),
        (b"".join(lines).replace(b'"round":2', b'"round":3'), "CHAIN_BROKEN"),
        (b"", "ENTRY_MISSING"),
        ((folder / "ledgers" / "clinic-a.jsonl").read_bytes(), "CHAIN_BROKEN"),
    ):
        file.write_bytes(content)
        found = audit(read_run(folder))
        assert (problem in found["problems"], found["epsilon"]) == (True, None)
    file.unlink()
    assert "LEDGER_MISSING" in audit(read_run(folder))["problems"]
    again = replace(settings_of(desk), state=folder.parent.with_name("again"))
    with suppress(Refusal):  # the sites' limits allow for one run
        run_job(desk.work, Asked(questions_of(desk)), again)
    with own_ledger(desk.work, bytes(16), again.federation, desk.signer) as own:
        assert own.lines().startswith(b"".join(lines))


@pytest.mark.parametrize("mode", ["M3", "M5"])
def test_the_coordinators_noise_has_the_size_of_the_plan(mode: str) -> None:
    work = crowd(40, mode, **({"separation": 2} if mode == "M5" else {}))
    plan, state = work.training, State(parameters=np.zeros(work.layout.size, np.float32))
    nothing = part(work, np.zeros((20, plan.dimension)))
    rows, state = site_updates(work, [nothing], state, 1)
    assert rows[0].std() * 20 / plan.clip == pytest.approx(plan.sigma / plan.scale, rel=0.1)
    assert len(state.noise) == (1 if mode == "M5" else 0)


def test_correlated_noise_nearly_cancels_in_the_sum_of_rounds() -> None:
    work = crowd(64, "M5", separation=16)
    work = replace(work, job=replace(work.job, rounds=64))
    plan, state = work.training, State(parameters=np.zeros(work.layout.size, np.float32))
    nothing, total = part(work, np.zeros((4, plan.dimension))), np.zeros(work.layout.size)
    for number in range(1, 65):
        rows, state = site_updates(work, [nothing], state, number)
        total += rows[0]
    alone = plan.clip * plan.sigma / plan.scale / 4 * np.sqrt(64)
    assert total.std() < 0.6 * alone
    assert state.noise.size == 0  # after the last round nothing is left that could take the noise off again


@pytest.mark.parametrize("start", [0.1, 1.0, 50.0])
def test_the_clip_comes_near_the_quantile_of_the_norms_wherever_it_starts(start: float) -> None:
    work = crowd(100, "M3", quantile=0.5, clip=start)
    plan, draw = work.training, np.random.default_rng(4)
    state = State(parameters=np.zeros(work.layout.size, np.float32), clip=start)
    for number in range(1, 61):
        norms = 2.0 * np.exp(0.5 * draw.normal(size=100))
        vectors = np.zeros((100, plan.dimension))
        vectors[:, -1] = np.where(norms <= state.clip, plan.lane_bound, -plan.lane_bound)
        _, state = site_updates(work, [part(work, vectors)], state, number)
    assert state.clip == pytest.approx(2.0, rel=0.15)


def test_every_turn_comes_once_and_they_are_as_far_apart_as_promised() -> None:
    work = crowd(40, "M5", separation=8)
    lots = [due(work, number) for number in range(1, 25)]
    assert all(len(lot) == 5 for lot in lots)
    for site in work.manifest.ids:
        rounds = [number for number, lot in enumerate(lots) if site in lot]
        assert {later - earlier for earlier, later in pairwise(rounds)} == {8}


def test_a_site_that_is_asked_out_of_turn_refuses_and_charges_nothing(federation: Callable[..., Desk]) -> None:
    desk = federation("M5", separation=2)
    opened = desk.opened()
    first: AnyReply = desk.ask(1, desk.work_order(opened=opened, round=3))
    assert isinstance(first, Reported)
    before = desk.charges(1)
    assert code_of(desk.ask(1, desk.work_order(opened=opened, round=4, number=1))) == "TURN_TOO_EARLY"
    assert desk.charges(1) == before
    assert isinstance(desk.ask(1, desk.work_order(opened=opened, round=5, number=2)), Reported)


def test_a_killed_run_of_correlated_noise_goes_on_with_the_noise_of_its_last_round(
    federation: Callable[..., Desk],
) -> None:
    whole, desk = federation("M5", "replay"), federation("M5", "replay")
    played(whole)
    orders = [0]

    def line(site: int, order: Any, answer: Callable[[], bytes]) -> bytes | None:
        orders[0] += getattr(order, "round", 0) == 3
        if orders[0] == 2:
            orders[0] += 1
            raise Killed
        return answer()

    with pytest.raises(Killed):
        run_job(desk.work, Asked(questions_of(desk, Lines(desk, line))), settings_of(desk))
    settings = settings_of(desk, resume=True)
    mark = f"{(settings.state / 'run.id').read_text()} {desk.work.job.digest().hex()}"
    kept = load_checkpoint(settings.checkpoint, mark, settings.live)
    assert kept.noise.shape == (1, desk.work.training.dimension)
    run_job(desk.work, Asked(questions_of(desk, Lines(desk, line))), settings)
    for number in (1, 2):
        files = [settings_of(each).history / f"{number:06d}.f32" for each in (desk, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()
    assert load_checkpoint(settings.checkpoint, mark, settings.live).noise.size == 0
    assert json.loads((settings.result / "run.json").read_text())["status"] == "completed"


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        ({"job.aggregation.quorum": 3}, "turn of 2 of 5 sites"),
        ({"job.aggregation.bits": 24, "job.aggregation.bound": 1.0}, "ring and scale follow"),
    ],
)
def test_jobs_that_no_round_could_be_played_of_are_refused(extra: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=why):
        desk_of(scenario("M2", {**changes("M5"), **extra}), tmp_path / "world")

"""Liars at work: each attack of the catalogue sends what its paper says, in the form that the mode's reports have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from common.config import load
from common.errors import Code, Refusal
from common.parameters import flatten
from common.randomness import child_numpy
from common.secagg.codec import RangeCodec
from common.work import Work, model_of, work_of
from server.job import prepared
from simulations.adversaries.band import Band, pipeline
from simulations.adversaries.catalogue import ON_RECORDS, ON_UPDATES, STRENGTHS, on_records, on_updates
from simulations.adversaries.form import Form
from simulations.adversaries.settings import Adversaries
from simulations.engines.engine import Turn
from simulations.engines.loop import LoopEngine
from simulations.ground import Ground
from simulations.open_world import population_of
from tests.worlds import scenario

SITES, SEED = (1, 2, 3, 4, 5), 3
NEEDED: dict[str, dict[str, Any]] = {
    "gaussian": {"deviation": 2.0},
    "ipm": {"epsilon": 0.5},
    "alie": {"z": 1.5},
    "mimic": {"warm_up": 3},
    "not-finite": {"value": "inf"},
    "targeted-flip": {"source": 0, "target": 1},
    "tail": {"source": 0, "target": 1, "share": 0.5},
    "edge-case": {"source": 0, "target": 1},
    "patch": {"target": 1, "size": 2, "share": 0.5},
}
FIVE = {"world.partition.sites": 5, "world.partition.minimum": 5, "job.privacy.noise": "replay"}


def world(mode: str = "none", base: str = "clinics", **more: Any) -> tuple[Work, Ground, LoopEngine]:
    made = scenario(mode, {**FIVE, **more}, base=base)
    ground = Ground(made)
    roster = population_of(made, ground)
    work = work_of(prepared(made.job, roster), roster)
    return work, ground, LoopEngine(work, ground)


@pytest.fixture(scope="module")
def clinics() -> tuple[Work, Ground, LoopEngine]:
    return world()


def band_of(made: tuple[Work, Ground, LoopEngine], **plan: Any) -> Band:
    work, ground, engine = made
    return Band(work, ground, engine, load(Adversaries, {"sites": 2, "from_round": 1, **plan}), SEED)


def turn_of(work: Work, number: int = 1) -> Turn:
    return Turn("train", number, 0, flatten(model_of(work.job)))


def lying(name: str, knows: str = "honest", **more: Any) -> dict[str, Any]:
    return {"updates": {"attack": name, "knows": knows, "settings": NEEDED.get(name, {}), **more}}


def sent(band: Band, work: Work) -> dict[int, np.ndarray]:
    """What liars report, in model units again."""
    form = Form(work)
    return {site: band.sent(site) / form.scale / form.weight(site) for site in sorted(band.liars)}


@pytest.mark.parametrize("name", ON_UPDATES)
def test_every_attack_on_updates_plays_what_it_says(name: str, clinics: tuple[Work, Ground, LoopEngine]) -> None:
    """Must: send the paper's rows, made of the updates of this very round. Must not: touch an honest site's."""
    work, _, engine = clinics
    band, turn = band_of(clinics, **lying(name)), turn_of(work)
    updates = dict(engine.updates(turn, SITES))
    band.conspire(turn, SITES, 0.0)
    honest = np.stack([updates[site] for site in SITES if site not in band.liars])
    own = np.stack([updates[site] for site in sorted(band.liars)])
    attack = on_updates(name, **NEEDED.get(name, {}))
    wanted = attack.poisoned(honest, own, {}, child_numpy(SEED, "lies", 1, 0))
    for (site, found), row in zip(sent(band, work).items(), wanted, strict=True):
        assert band.lies(site, (1, 0))
        if name == "not-finite":  # the fullest lanes there are
            assert (band.sent(site) == 2 ** (work.codec("train").ring.bits - 1) - 1).all()
        else:
            assert np.abs(found - row).max() <= 0.51 / Form(work).scale / Form(work).weight(site)
    assert not any(band.lies(site, (1, 0)) for site in SITES if site not in band.liars)
    again = dict(band.engine.updates(turn, SITES))
    assert all(np.array_equal(again[site], updates[site]) for site in SITES)


def test_a_liar_that_knows_only_its_own_is_not_told_more(clinics: tuple[Work, Ground, LoopEngine]) -> None:
    work, _, engine = clinics
    band, turn = band_of(clinics, **lying("ipm", "own")), turn_of(work)
    band.conspire(turn, SITES, 0.0)
    own = np.stack([update for _, update in engine.updates(turn, sorted(band.liars))])
    for found in sent(band, work).values():
        assert np.allclose(found, -0.5 * own.mean(axis=0), atol=1e-4)


def test_liars_know_what_honest_sites_report_and_not_what_their_guards_cut_off() -> None:
    made = world(**{"job.aggregation.bound": 0.01})
    band, turn = band_of(made, **lying("ipm")), turn_of(made[0])
    band.conspire(turn, SITES, 0.0)
    honest = [update for site, update in made[2].updates(turn, SITES) if site not in band.liars]
    assert np.abs(honest).max() > 0.02
    wanted = -0.5 * np.clip(honest, -0.01, 0.01).mean(axis=0)
    assert all(np.allclose(found, wanted, atol=1e-6) for found in sent(band, made[0]).values())


def test_nobody_lies_before_the_first_round_of_lies_or_about_counts(clinics: tuple[Work, Ground, LoopEngine]) -> None:
    work = clinics[0]
    band = band_of(clinics, from_round=3, records={"attack": "label-flip"}, **lying("zero"))
    for number, lies in ((1, False), (2, False), (3, True)):
        band.conspire(turn_of(work, number), SITES, 0.0)
        assert all(band.lies(site, (number, 0)) is lies for site in band.liars)
    band.conspire(Turn("evaluate", 3, 0, turn_of(work).parameters), SITES, 0.0)
    assert not any(band.lies(site, (3, 0)) for site in SITES)


def test_memory_reaches_from_round_to_round(clinics: tuple[Work, Ground, LoopEngine]) -> None:
    work, _, engine = clinics
    band = band_of(clinics, **lying("stale"))
    for number in (1, 2):
        band.conspire(turn_of(work, number), SITES, 0.0)
    before = dict(engine.updates(turn_of(work, 1), SITES))
    for site, found in sent(band, work).items():
        assert np.allclose(found, before[site], atol=1e-4)


@pytest.mark.parametrize("name", ON_RECORDS)
def test_every_attack_on_records_trains_on_what_it_has_changed(name: str) -> None:
    """Must: teach the liars' own spoiled records. Must not: change anything for the others, or before its round."""
    made = world(base="digits") if ON_RECORDS[name].input == "image" else world()
    work, ground, engine = made
    band = band_of(made, from_round=2, records={"attack": name, "settings": NEEDED.get(name, {})})
    poisoning = on_records(name, work.job.data, **NEEDED.get(name, {}))
    early, late = turn_of(work, 1), turn_of(work, 2)
    clean, before = dict(engine.updates(late, SITES)), dict(engine.updates(early, SITES))
    assert all(np.array_equal(update, before[site]) for site, update in band.engine.updates(early, SITES))
    found = list(band.engine.updates(late, SITES))
    assert tuple(site for site, _ in found) == SITES
    for site, update in found:
        if site not in band.liars:
            assert np.array_equal(update, clean[site])
            continue
        seed = int(child_numpy(SEED, "spoiled", site).integers(2**53))
        spoiled = poisoning.poison(ground.train(site), seed)
        own = LoopEngine(work, ground, train=lambda _, spoiled=spoiled: spoiled)
        assert np.array_equal(update, dict(own.updates(late, [site]))[site])
        assert not np.array_equal(update, clean[site])
    share = band.engine.share(late, SITES, np.ones(5), np.inf)
    assert np.allclose(share.sum, np.sum([update for _, update in found], axis=0))
    assert np.allclose(share.norms, [np.linalg.norm(update) for _, update in found])


def test_a_lie_without_a_number_is_not_sent(clinics: tuple[Work, Ground, LoopEngine]) -> None:
    band = band_of(clinics, **lying("not-finite", settings={"value": "nan"}))
    band.conspire(turn_of(clinics[0]), SITES, 0.0)
    with pytest.raises(Refusal) as refused:
        band.sent(min(band.liars))
    assert refused.value.code is Code.UPDATE_INVALID


@pytest.mark.parametrize("mode", ["none", "M2"])
def test_a_report_beyond_what_a_sum_can_hold_is_no_sum(mode: str) -> None:
    """Must: let a liar write more than the bound, up to what all reports of a sum may hold together; no more."""
    local = {"job.training.local_steps": 1, "job.aggregation.strategy": "fedavg"} if mode == "M2" else {}
    work, _, engine = world(mode, **local)
    form, turn = Form(work), turn_of(work)
    value = next(iter((engine.gradients if mode == "M2" else engine.updates)(turn, [1])))[1]
    codec = work.codec("train")
    steps = codec.steps if isinstance(codec, RangeCodec) else codec.limit
    for share, believed in ((2.9, True), (3.1, False)):
        lie = np.full(work.layout.size, share * form.most / form.weight(1))
        total = form.added(1, form.integers(lie, 1, value, turn))
        for site in (2, 3):
            total += form.added(site, form.integers(np.zeros_like(lie), site, value, turn))
        if believed:
            assert np.abs(form.opened(total).values[: lie.size]).max() == pytest.approx(share * steps, rel=1e-6)
            continue
        with pytest.raises(Refusal) as refused:
            form.opened(total)
        assert refused.value.code is Code.E_SUM_CHECK


@pytest.mark.parametrize("name", STRENGTHS)
def test_an_adaptive_liar_does_more_harm_through_the_job_s_own_rule_than_fixed_strengths(name: str) -> None:
    groups = {"job.aggregation.strategy": "median", "job.aggregation.settings": {"liars": 1}}
    made = world(**groups, **{"job.aggregation.groups": 3, "world.partition.sites": 9})
    work, sites = made[0], tuple(range(1, 10))
    form, turn, strength = Form(work), turn_of(made[0]), STRENGTHS[name][0]

    def harm(**more: Any) -> float:
        band = band_of(made, sites=1, updates={"attack": name, "knows": "honest", **more})
        band.conspire(turn, sites, 0.0)
        honest = [site for site in sites if site not in band.liars]
        updates = dict(made[2].updates(turn, honest))
        rows = np.stack([*(updates[site] for site in honest), *sent(band, work).values()])
        through = pipeline(form, turn, sites, [*honest, *sorted(band.liars)])
        return float(np.linalg.norm(through(rows) - rows[: len(honest)].mean(axis=0)))

    found = harm(adaptive=True)
    assert all(found >= 0.99 * harm(settings={strength: value}) for value in (0.3, 1.0, 3.0, 10.0))

"""Exact sums are those that masks would show, up to rounding; and a population costs what its cohorts cost."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from client.craft import Assignment, OwnCraft
from client.trainer import Workbench
from common.data import Records
from common.errors import Code, Refusal
from simulations.engines.catalogue import EngineName
from simulations.ground import Ground
from simulations.world import Finished, simulate
from tests.worlds import scenario

SITE = {
    "mode": "M4",
    "unit": "site",
    "epsilon": 8.0,
    "delta": 1e-4,
    "clip": 0.5,
    "colluding": 1,
    "spare_rounds": 2,
    "evaluation_epsilon": 3.0,
    "noise": "replay",
}
OF_SITES = {
    "job.training.local_steps": 3,
    "job.aggregation.strategy": "fedavg",
    "job.aggregation.quorum": 2,
    "world.partition.sites": 5,
    "world.partition.minimum": 20,
}
GROUPED = {
    "job.aggregation.strategy": "median",
    "job.aggregation.settings": {"liars": 1},
    "job.aggregation.groups": 3,
    "job.aggregation.quorum": 2,
    "world.partition.sites": 9,
    "world.partition.minimum": 5,
}
WORLDS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "M1": ("M1", {}),
    "M2": ("M2", {}),
    "M3": ("M2", {**OF_SITES, "job.privacy": {n: v for n, v in SITE.items() if n != "colluding"} | {"mode": "M3"}}),
    "M4": ("M2", {**OF_SITES, "job.privacy": SITE}),
    "M4 with an adaptive clip": ("M2", {**OF_SITES, "job.privacy": {**SITE, "quantile": 0.5}}),
    "M4 in a ring of few bits": (
        "M2",
        {**OF_SITES, "job.privacy": {**SITE, "mechanism": "discrete-gaussian"}, "job.aggregation.bits": 16},
    ),
    "M4 with noise for records": (
        "M2",
        {**OF_SITES, "job.privacy": {**SITE, "local": {"epsilon": 8.0, "clip": 1.0, "sampling_rate": 0.5}}},
    ),
    "tight bound": ("none", {"job.aggregation.bound": 0.01}),
    "dropouts": ("none", {"world.faults": {"dropout": 0.25}, "job.rounds": 6}),
    "groups": ("none", GROUPED),
    "cohort": ("none", {"world.partition.sites": 6, "world.partition.minimum": 5, "job.aggregation.cohort": 3}),
    "resampled": (
        "none",
        {"world.partition": {"kind": "resampled", "sites": 5, "records": 60, "minimum": 20}, "job.rounds": 2},
    ),
}


def played(
    mode: str, changes: dict[str, Any], sums: str, folder: Path, engine: EngineName = EngineName.PROCESS
) -> Finished:
    return simulate(scenario(mode, {**changes, "world.sums": sums}), folder, engine)


@pytest.mark.parametrize("name", WORLDS)
def test_exact_sums_make_the_model_that_masked_sums_make(name: str, tmp_path: Path) -> None:
    """Must: ask the same sites, lose the same answers, reach the same model and counts. Must not: charge anybody."""
    mode, changes = WORLDS[name]
    masked, exact = (played(mode, changes, sums, tmp_path / sums) for sums in ("masked", "exact"))
    one, other = masked.state.parameters, exact.state.parameters
    assert np.linalg.norm(one - other) <= 2e-5 * np.linalg.norm(one)
    assert [row["sites"] for row in masked.state.rounds] == [row["sites"] for row in exact.state.rounds]
    assert [row["refusals"] for row in masked.state.rounds] == [row["refusals"] for row in exact.state.rounds]
    assert masked.state.evaluation is not None
    assert exact.state.evaluation is not None
    assert masked.state.evaluation["counts"] == exact.state.evaluation["counts"]
    assert exact.state.epsilon == {}
    assert list((exact.record / "ledgers").iterdir()) == []


def test_noise_that_is_secret_never_repeats(tmp_path: Path) -> None:
    changes = {"job.privacy.noise": "system", "job.rounds": 1}
    one, two = (played("M2", changes, "exact", tmp_path / name).state.parameters for name in ("one", "two"))
    assert not np.array_equal(one, two)


POPULATION = {
    "world.partition": {"kind": "resampled", "sites": 1_000_000, "records": 20, "minimum": 1},
    "job.aggregation.cohort": 40,
    "job.aggregation.quorum": 20,
    "job.rounds": 2,
}


def test_a_million_sites_cost_what_their_cohorts_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must not: look at a site that is not asked, or keep a list of all."""
    looked: set[int] = set()
    rows = Ground._rows

    def counted(self: Ground, site: int) -> Any:
        looked.add(site)
        return rows(self, site)

    monkeypatch.setattr(Ground, "_rows", counted)
    tracemalloc.start()
    done = played("none", POPULATION, "exact", tmp_path / "world")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [len(row["sites"]) for row in done.state.rounds] == [40, 40]
    assert len(looked) <= 40 * 3 + 64
    assert peak < 2**25


def test_rounds_of_more_sites_than_a_sum_holds_are_refused(tmp_path: Path) -> None:
    changes = {**POPULATION, "job.aggregation.cohort": None, "job.aggregation.quorum": 3}
    with pytest.raises(Refusal, match="Rounds of 1000000 sites") as caught:
        played("none", {name: value for name, value in changes.items() if value is not None}, "exact", tmp_path / "w")
    assert caught.value.code is Code.CONFIG_INVALID


def test_a_site_that_diverges_is_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: go on without it, as a masked run does when a site refuses to send it. Must not: sum what is not finite."""
    honest = OwnCraft.plainly

    def diverging(self: OwnCraft, bench: Workbench, train: Records, given: Assignment) -> NDArray[np.float64]:
        update = honest(self, bench, train, given)
        return np.full_like(update, np.nan) if given.site == 2 else update

    monkeypatch.setattr(OwnCraft, "plainly", diverging)
    changes = {"job.aggregation.quorum": 2}
    masked, exact = (played("none", changes, sums, tmp_path / sums, EngineName.LOOP) for sums in ("masked", "exact"))
    for done in (masked, exact):
        assert {r["code"] for row in done.state.rounds for r in row["refusals"]} == {"UPDATE_INVALID"}
        assert [len(row["sites"]) for row in done.state.rounds] == [2, 2, 2]
    assert np.allclose(masked.state.parameters, exact.state.parameters, rtol=2e-5)

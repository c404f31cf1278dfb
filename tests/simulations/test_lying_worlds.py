"""Worlds with lying sites: masked as exact, one engine as the other; what votes withstand, and what passes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import plain, read_table
from common.errors import Refusal
from common.parameters import flatten
from common.work import model_of
from simulations.adversaries.damage import damage
from simulations.engines.catalogue import EngineName
from simulations.ground import Ground
from simulations.rebuilt import rebuilt, told
from simulations.scenario import Scenario, example, scenario_of_table
from simulations.world import Finished, simulate
from tests.simulations.test_exact import GROUPED, OF_SITES, SITE
from tests.worlds import scenario

FEW = {"job.rounds": 1, "world.partition.sites": 5, "world.partition.minimum": 5}
VOTE = {**GROUPED, "job.rounds": 2}
PATCH = {"attack": "patch", "settings": {"target": 1, "size": 3, "share": 0.5}}


def updates(attack: str, knows: str = "honest", **settings: Any) -> dict[str, Any]:
    return {"updates": {"attack": attack, "knows": knows, "settings": settings}}


def lying(plan: dict[str, Any], sites: int = 1) -> dict[str, Any]:
    return {"world.adversaries": {"sites": sites, "from_round": 1, **plan}}


FLIPPED = updates("sign-flip", "own", scale=3.0)
WORLDS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {**FEW, "job.rounds": 2, **lying(updates("stale", "own"), 2)}),
    "none, groups and chance": ("none", {**VOTE, **lying(updates("gaussian", deviation=0.1), 2)}),
    "none, an adaptive liar": (
        "none",
        {**VOTE, **lying({"updates": {"attack": "alie", "knows": "honest", "adaptive": True}}, 1)},
    ),
    "none, no number": ("none", {**FEW, **lying(updates("not-finite", value="nan"), 1)}),
    "M1": ("M1", {**FEW, **lying({"records": PATCH, **updates("replacement", "own", boost=2.0)})}),
    "M2": ("M2", {**FEW, **lying(FLIPPED)}),
    "M4 with noise for records": (
        "M2",
        {
            **OF_SITES,
            "job.rounds": 1,
            "job.privacy": {**SITE, "local": {"epsilon": 8.0, "clip": 1.0, "sampling_rate": 0.5}},
            **lying(updates("ipm", epsilon=3.0)),
        },
    ),
    "pairwise masks": (
        "none",
        {**FEW, "job.aggregation.quorum": 4, "job.aggregation.protocol": "bonawitz", **lying(FLIPPED)},
    ),
    "M4 with an adaptive clip": (
        "M2",
        {**OF_SITES, "job.rounds": 2, "job.privacy": {**SITE, "quantile": 0.5}, **lying(FLIPPED)},
    ),
    "M4 in a ring of few bits": (
        "M2",
        {
            **OF_SITES,
            "job.rounds": 1,
            "job.privacy": {**SITE, "mechanism": "discrete-gaussian"},
            "job.aggregation.bits": 16,
            **lying(FLIPPED),
        },
    ),
}


def played(
    mode: str, changes: dict[str, Any], folder: Path, sums: str = "exact", engine: EngineName = EngineName.LOOP
) -> Finished:
    return simulate(scenario(mode, {**changes, "world.sums": sums}), folder, engine)


@pytest.mark.parametrize("name", WORLDS)
def test_a_liar_does_in_a_masked_world_what_it_does_in_an_exact_one(name: str, tmp_path: Path) -> None:
    """Must: reach the same model with the same refusals, by one engine as by the other; charge liars like all others.

    Must not: be stopped by the guard or codec of its own site, or reach the model of an honest world.
    """
    mode, changes = WORLDS[name]
    masked = played(mode, changes, tmp_path / "masked", "masked", EngineName.PROCESS)
    exact = played(mode, changes, tmp_path / "exact")
    one, other = masked.state.parameters, exact.state.parameters
    assert np.linalg.norm(one - other) <= 2e-5 * np.linalg.norm(one)
    assert [row["refusals"] for row in masked.state.rounds] == [row["refusals"] for row in exact.state.rounds]
    assert len(masked.state.epsilon) == len(masked.work.roster.ids)
    assert masked.unattacked is not None
    assert exact.unattacked is not None
    assert np.linalg.norm(masked.unattacked - exact.unattacked) <= 2e-5 * np.linalg.norm(masked.unattacked)
    assert np.linalg.norm(other - exact.unattacked) > 1e-3 * np.linalg.norm(other)


TRUTH = lying(updates("replacement", "own", boost=1.0), 2)
LOOSE = {"job.rounds": 1, "job.privacy.epsilon": 1000.0, "job.privacy.evaluation_epsilon": 1000.0}
WIDE = {**SITE, "epsilon": 1000.0, "evaluation_epsilon": 1000.0, "clip": 4.0}
CENTRAL = {name: value for name, value in {**WIDE, "clip": 50.0}.items() if name != "colluding"} | {"mode": "M3"}
FEW_BITS = {"job.privacy": {**WIDE, "mechanism": "skellam"}, "job.aggregation.bits": 24}


@pytest.mark.parametrize(
    ("mode", "changes", "near"),
    [
        ("none", FEW, 1e-5),
        ("M2", LOOSE, 0.1),
        ("M2", {**OF_SITES, "job.rounds": 1, "job.privacy": CENTRAL}, 1e-5),  # the coordinator's noise is the same
        ("M2", {**OF_SITES, "job.rounds": 1, **FEW_BITS}, 0.5),
    ],
    ids=["none", "M2", "M3", "M4 in a ring of few bits"],
)
def test_a_liar_that_tells_the_truth_changes_nothing(
    mode: str, changes: dict[str, Any], near: float, tmp_path: Path
) -> None:
    """Its report in each mode's form stands for its own update and weighs as it did; only its noise is missing."""
    done = played(mode, {**changes, **TRUTH}, tmp_path / "world")
    assert done.unattacked is not None
    moved = np.linalg.norm(done.unattacked - flatten(model_of(done.work.job)))
    assert np.linalg.norm(done.state.parameters - done.unattacked) <= near * moved


def test_an_honest_world_is_not_touched_by_liars_that_come_later(tmp_path: Path) -> None:
    """Bit for bit: with the first round of lies beyond the last, nothing is drawn, computed or sent otherwise."""
    later = {"world.adversaries": {"sites": 1, "from_round": 9, "records": PATCH, **FLIPPED}}
    for sums in ("exact", "masked"):
        honest, late = (played("none", {**FEW, **more}, tmp_path / f"{sums}{len(more)}", sums) for more in ({}, later))
        assert honest.state.parameters.tobytes() == late.state.parameters.tobytes()
        assert honest.unattacked is None
        assert late.unattacked is not None
        if sums == "exact":
            assert late.unattacked.tobytes() == honest.state.parameters.tobytes()


def test_a_lie_that_no_sum_can_hold_ends_a_mean_and_costs_a_vote_one_group(tmp_path: Path) -> None:
    """Must: refuse that sum alone, and go on with the groups that are left. Must not: let it into a model."""
    full = lying(updates("not-finite", value="huge"))
    enough = {**VOTE, "job.aggregation.groups": 4, "world.partition.sites": 12, "job.rounds": 1}
    done = played("none", {**enough, **full}, tmp_path / "vote", "masked")
    assert [len(row["groups"]) for row in done.state.rounds] == [3]
    assert np.array_equal(done.state.parameters, done.state.parameters.clip(-10, 10))
    for sums in ("exact", "masked"):
        with pytest.raises(Refusal, match="E_SUM_CHECK"):
            played("none", {**FEW, **full}, tmp_path / sums, sums)


def test_records_of_a_world_with_liars_are_not_given_out_as_those_that_were_trained_on() -> None:
    made = scenario("none", {**FEW, **lying(FLIPPED)})
    with pytest.raises(Refusal, match="some of its sites lied"):
        rebuilt({"world": told(made, "00"), "job": plain(made.job)})


def measured(made: Scenario, folder: Path) -> dict[str, Any]:
    """What lying sites have done to the model of a world."""
    done = simulate(made, folder, EngineName.LOOP)
    assert done.unattacked is not None
    held = Ground(made).tested(done.work.roster.ids)
    return damage(made, done.work, held, [done.state.parameters], done.unattacked).entry


def test_a_vote_over_masked_groups_withstands_what_ruins_the_mean(tmp_path: Path) -> None:
    """Must: stay near the honest model under a reversed update of ten times its length, sums masked."""
    flip = {**lying(updates("sign-flip", "own", scale=10.0)), "job.rounds": 3, "job.aggregation.bound": 8.0}
    told = {}
    for name, rule in (("vote", GROUPED), ("mean", {"world.partition.sites": 9, "world.partition.minimum": 5})):
        made = scenario("none", {**rule, **flip}, base="digits")
        assert made.world.sums == "masked"
        told[name] = measured(made, tmp_path / name)
    assert told["vote"]["accuracy"]["value"] > 0.7
    assert told["vote"]["difference"]["value"] > -0.1
    assert told["mean"]["accuracy"]["value"] < 0.3
    assert told["mean"]["difference"]["high"] < -0.5


def test_a_backdoor_passes_through_grouped_sums(tmp_path: Path) -> None:
    """The plain sentence of every report, measured: two sites of twenty teach their patch to a vote that bears two,
    where sites hold different data, and accuracy does not tell.
    """
    table = read_table(example("digits-liars"))
    table["job"] |= {"rounds": 12, "training": {"learning_rate": 1.0, "local_steps": 10}}
    table["world"]["sums"] = "exact"
    found = measured(scenario_of_table(table), tmp_path / "world")
    assert found["backdoor"]["base"]["value"] < 0.05
    assert found["backdoor"]["lift"]["low"] > 0.2
    assert found["difference"]["value"] > -0.05

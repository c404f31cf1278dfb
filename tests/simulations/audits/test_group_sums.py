"""Rounds of grouped sums: each group carries the noise of its own sites alone, and every site is in one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simulations.audits.problems import Problem
from simulations.audits.rounds import miscounted, thin
from simulations.audits.runs import Run
from simulations.audits.terms import Terms

SITES = ["a", "b", "c", "d"]


def run_of(groups: list[list[str]] | None) -> Run:
    row: dict[str, Any] = {"round": 1, "sites": SITES, **({"groups": groups} if groups else {})}
    return Run(folder=Path(), facts={"job": {"rounds": 1}}, rounds=(row,), ledgers={})


def codes(run: Run, honest: int) -> set[Problem]:
    terms = Terms(mode="M2", unit="record", noise="system", delta=1e-5, promised={}, honest={"train": honest})
    return {finding.code for finding in (*thin(run, terms), *miscounted(run, ()))}


def test_a_sum_over_all_sites_carries_the_noise_of_all() -> None:
    assert codes(run_of(None), 4) == set()


def test_a_group_must_have_as_many_sites_as_share_the_noise() -> None:
    """Must not: let sites of another group stand in for those that were missing."""
    assert codes(run_of([["a", "b"], ["c", "d"]]), 2) == set()
    assert codes(run_of([["a", "b"], ["c", "d"]]), 3) == {Problem.NOISE_TOO_SMALL}
    assert codes(run_of([["a", "b", "c"], ["d"]]), 2) == {Problem.NOISE_TOO_SMALL}


@pytest.mark.parametrize("groups", [[["a", "b"], ["c"]], [["a", "b"], ["b", "c", "d"]], [["a", "b"], ["c", "d", "e"]]])
def test_groups_are_the_sites_of_their_round(groups: list[list[str]]) -> None:
    assert Problem.ROUNDS_MISMATCH in codes(run_of(groups), 1)

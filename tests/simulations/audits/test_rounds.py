"""Rounds that are missing, repeated, made up or of strangers are found, also when the coordinator signs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from tests.simulations.recorded import ROUNDS, edit, edit_rounds, problems, sign


def numbered(numbers: list[int]) -> Callable[[list[dict[str, Any]]], object]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[:] = [{**rows[min(number, ROUNDS) - 1], "round": number} for number in numbers]

    return change


@pytest.mark.parametrize(
    "numbers", [[1, 2, 3], [1, 2, 3, 4, 6], [1, 2, 3, 4, 5, 5, 6], [2, 1, 3, 4, 5, 6], [*range(1, 8)], [0, 1, 2, 3], []]
)
def test_rounds_that_are_missing_repeated_or_too_many_are_found(run: Path, numbers: list[int]):
    """Also when the coordinator signs them."""
    edit_rounds(run, numbered(numbers))
    assert "ROUNDS_MISMATCH" in problems(run)
    sign(run)
    assert "ROUNDS_MISMATCH" in problems(run)


def test_a_job_that_asked_for_other_rounds_is_found(run: Path):
    edit(run, lambda facts: facts["job"].update(rounds=ROUNDS + 1))
    sign(run)
    assert problems(run) == {"ROUNDS_MISMATCH", "JOB_MISMATCH"}


def test_rounds_that_sites_were_charged_for_cannot_be_left_out(run: Path):
    """The attack: fewer rounds in the record and as many more spare ones, so that the plans stay the same."""
    edit_rounds(run, lambda rows: rows.__delitem__(slice(3, None)))
    edit(run, lambda facts: facts["job"].update(rounds=3) or facts.update(evaluation=None))
    edit(run, lambda facts: facts["job"]["privacy"].update(spare_rounds=7))
    sign(run)
    found = audit(read_run(run))
    assert "ROUNDS_MISMATCH" in found["problems"]
    assert {one["site"] for one in found["findings"] if one["code"] == "ROUNDS_MISMATCH"} >= {"clinic-a", "clinic-b"}


@pytest.mark.parametrize("place", ["evaluation", "rounds", "fingerprints", "heads"])
def test_a_site_that_the_manifest_does_not_name_is_found(run: Path, place: str):
    if place == "evaluation":
        edit(run, lambda facts: facts["evaluation"]["sites"].append("clinic-z"))
    elif place == "rounds":
        edit_rounds(run, lambda rows: rows[2]["sites"].append("clinic-z"))
    else:
        edit(run, lambda facts: facts[place].update({"clinic-z": facts[place]["clinic-a"]}))
    sign(run)
    assert problems(run) == {"MANIFEST_INVALID"}


def test_a_job_in_groups_whose_rounds_name_none_is_found(run: Path):
    edit(run, lambda facts: facts["job"]["aggregation"].update(groups=2))
    sign(run)
    assert "ROUNDS_MISMATCH" in problems(run)

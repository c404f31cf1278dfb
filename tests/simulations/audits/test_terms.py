"""What sites signed decides about every figure: a job in run.json that says otherwise is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common.errors import Code, Refusal
from common.privacy.entries import Entry
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from tests.simulations.recorded import ROUNDS, edit, problems, sign, write_run


@pytest.mark.parametrize("change", [{"delta": "1e-4"}, {"delta": float("nan")}, {"epsilon": True}])
def test_a_figure_that_is_no_number_is_refused(run: Path, change: dict[str, Any]):
    edit(run, lambda facts: facts["job"]["privacy"].update(change))
    with pytest.raises(Refusal) as refused:
        read_run(run)
    assert refused.value.code is Code.DATA_INVALID


@pytest.mark.parametrize(
    "change",
    [{"delta": 1e-12}, {"mode": "M1"}, {"unit": "site"}, {"epsilon": 100.0}, {"evaluation_epsilon": 100.0},
     {"colluding": 2}, {"colluding": 0}, {"clip": 0.1}, {"sampling_rate": 0.01}, {"spare_rounds": 40},
     {"mode": "none"}, {"delta": None}, {"more": 1}],
)  # fmt: skip
def test_a_job_that_says_other_than_what_sites_signed_is_found(run: Path, change: dict[str, Any]):
    """Must: report what was signed. Must not: believe run.json, whoever signed that."""
    edit(run, lambda facts: facts["job"]["privacy"].update(change))
    assert problems(run) & {"RECORD_MISMATCH"}
    sign(run)
    found = audit(read_run(run))
    assert {"JOB_MISMATCH", "PLAN_MISMATCH"} & set(found["problems"])
    assert (found["delta"], found["mode"], found["unit"], found["limit"]) == (1e-4, "M2", "record", 3.0)
    assert all((site["delta"], site["mode"], site["unit"]) == (1e-4, "M2", "record") for site in found["sites"])


@pytest.mark.parametrize(
    ("part", "change"), [("training", {"learning_rate": 9.0}), ("aggregation", {"deadline_seconds": 9.0})]
)
def test_settings_that_change_no_plan_are_signed_by_the_sites_too(run: Path, part: str, change: dict[str, Any]):
    """Each charge names the job it was for: not even the coordinator can tell of another one afterwards."""
    edit(run, lambda facts: facts["job"][part].update(change))
    sign(run)
    assert problems(run) == {"JOB_MISMATCH"}


@pytest.mark.parametrize(("part", "change"), [("training", {"local_steps": 3}), ("aggregation", {"quorum": 4}),
                                              ("model", {"name": "cnn"}), ("evaluation", {"bins": 4})])  # fmt: skip
def test_other_parts_of_the_job_that_change_its_plans_are_found(run: Path, part: str, change: dict[str, Any]):
    edit(run, lambda facts: facts["job"][part].update(change))
    sign(run)
    assert "JOB_MISMATCH" in problems(run)


def test_a_run_that_cost_more_than_its_plans_promised_is_found(tmp_path: Path):
    """The attack: sites sign plans that promise less than their noise keeps, and the job agrees."""

    def promise_less(site: str, entry: Entry) -> Entry:
        if entry.plan is None:
            return entry
        plan = replace(entry.plan, epsilon=0.2)
        return replace(entry, plan=plan, plan_id=plan.plan_id)

    def agree(facts: dict[str, Any]) -> None:
        facts["job"]["privacy"].update(epsilon=0.2, evaluation_epsilon=0.2)

    run = write_run(tmp_path / "run", rounds=ROUNDS, spoil=promise_less, change=agree)
    assert problems(run) == {"BUDGET_EXCEEDED", "JOB_MISMATCH"}


def test_sites_that_signed_different_plans_are_found(tmp_path: Path):
    def other(site: str, entry: Entry) -> Entry:
        if entry.plan is None or site != "clinic-b":
            return entry
        plan = replace(entry.plan, delta=1e-3)
        return replace(entry, plan=plan, plan_id=plan.plan_id)

    run = write_run(tmp_path / "run", rounds=ROUNDS, spoil=other)
    assert problems(run) == {"PLAN_MISMATCH", "JOB_MISMATCH"}
    assert audit(read_run(run))["delta"] == 1e-4


@pytest.mark.parametrize(
    "change",
    [{"sampling_rate": 0.0}, {"sampling_rate": 2.0}, {"noise_multiplier": 0.0}, {"noise_multiplier": 1e300},
     {"honest": 0}, {"honest": 2**62}, {"dimension": -1}, {"scale": 0.0}, {"record_bound": 1e300}, {"delta": -1.0}],
    ids=str,
)  # fmt: skip
def test_a_site_cannot_stop_the_audit_with_a_plan_that_has_no_cost(tmp_path: Path, change: dict[str, Any]):
    def spoil(site: str, entry: Entry) -> Entry:
        if entry.plan is None or (site, entry.partition) != ("clinic-b", "train"):
            return entry
        plan = replace(entry.plan, **change)
        return replace(entry, plan=plan, plan_id=plan.plan_id)

    run = write_run(tmp_path / "run", rounds=2, spoil=spoil)
    assert problems(run) >= {"PLAN_INVALID", "PLAN_MISMATCH"}
    assert audit(read_run(run))["sites"][1]["recomputed"] is None

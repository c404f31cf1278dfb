"""The example of a large population: whole as it stands, played small, refused where its record could not be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import Code, Refusal
from common.work import work_of
from server.job import prepared
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from simulations.door import app
from simulations.ground import Ground
from simulations.open_world import population_of
from simulations.scenario import Scenario, example, read_scenario

SMALL = ("job.rounds=3", "job.aggregation.cohort=12", "job.aggregation.quorum=6", "job.privacy.colluding=1")


def crowd(*changes: str) -> Scenario:
    return read_scenario(example("digits-crowd"), changes)


def test_the_example_runs_small_and_prints_the_keys_of_every_run(tmp_path: Path) -> None:
    sets = [word for change in SMALL for word in ("--set", change)]
    arguments = ["run", "digits-crowd", "--engine", "loop", *sets, "--out", str(tmp_path / "run"), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert (told["sites"], told["rounds"], told["status"]) == (1_000_000, 3, "completed")
    assert told["privacy"]["planned"] is True
    assert (told["privacy"]["unit"], told["privacy"]["mode"], told["privacy"]["delta"]) == ("site", "M4", 1e-7)
    assert 0 < told["privacy"]["epsilon"] <= 8
    assert "no test of secure aggregation" in told["claim"]
    run = read_run(tmp_path / "run")
    assert run.facts["world"]["engine"] == "loop"
    assert (run.facts["manifest"], run.facts["population"], run.ledgers) == (None, 1_000_000, {})
    assert run.sites == []
    found = audit(run)
    assert (found["verdict"], found["problems"]) == ("INCONCLUSIVE", [])
    assert found["planned"]["epsilon"] == pytest.approx(told["privacy"]["epsilon"])
    assert any("all its training records" in one or "One training record" in one for one in found["claims"])


@pytest.mark.parametrize("sites", [200, 1_000_000])
def test_noise_is_that_of_the_cohort_however_large_the_population(sites: int) -> None:
    """Must: depend on the reports of one sum. Must not: leave room in the ring for sites that are never asked."""
    made = crowd(f"world.partition.sites={sites}", "job.privacy.delta=1e-7")
    roster = population_of(made, Ground(made))
    work = work_of(prepared(made.job, roster), roster)
    assert work.sum_max == 100
    few = crowd("world.partition.sites=100", "job.privacy.delta=1e-7")
    same = population_of(few, Ground(few))
    assert work.training == work_of(prepared(few.job, same), same).training


def test_a_delta_is_held_against_the_whole_population() -> None:
    made = crowd("job.privacy.delta=1e-5")
    roster = population_of(made, Ground(made))
    with pytest.raises(Refusal, match="1000000 sites") as refused:
        _ = work_of(prepared(made.job, roster), roster).training
    assert refused.value.code is Code.JOB_INVALID


def test_a_record_too_large_to_be_read_is_refused_before_any_work() -> None:
    made = crowd("job.rounds=100000", "job.aggregation.cohort=8000", "job.privacy.delta=1e-9")
    with pytest.raises(Refusal, match="record would name") as refused:
        population_of(made, Ground(made))
    assert refused.value.code is Code.CONFIG_INVALID

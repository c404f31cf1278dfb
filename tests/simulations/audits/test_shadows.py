"""A shadow model is what the run would have trained on other records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import client.guard
import client.private_step
import simulations.audits.shadows
from common.parameters import flatten
from simulations.audits.claimed import simulated_work
from simulations.audits.models import flat_of
from simulations.audits.runs import read_run
from simulations.audits.shadows import course_of, shadow
from simulations.finish import finish
from simulations.rebuilt import rebuilt
from simulations.scenario import example, read_scenario
from simulations.world import simulate


def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No noise anywhere, so that two trainings can be compared."""
    monkeypatch.setattr(client.guard, "integer_noise", lambda plan, entropy: np.zeros(plan.dimension, np.int64))
    for room in (client.private_step, simulations.audits.shadows):
        monkeypatch.setattr(room, "normals", lambda count, entropy: np.zeros(count))


@pytest.mark.parametrize("data", ["clinics", "digits-local"])
def test_on_the_run_s_own_records_it_is_the_run_s_model(data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Modes M2 and M1, everybody sampled and nothing noised: equal up to rounding of sums and of the ring."""
    silent(monkeypatch)
    scenario = read_scenario(example(data), ["job.rounds=3", "job.privacy.sampling_rate=1.0"])
    done = simulate(scenario, tmp_path / "world")
    finish(scenario, done, tmp_path / "run")
    run = read_run(tmp_path / "run")
    work = simulated_work(run)
    trained = shadow(course_of(run, work), [site.train for site in rebuilt(run.facts)], (1, 0))
    released = flat_of(run.model or b"", work.layout)
    assert np.abs(released).max() > 0.05
    assert np.allclose(flatten(trained.model), released, atol=1e-3)


def test_the_same_place_gives_the_same_model_and_another_place_another(tmp_path: Path):
    scenario = read_scenario(example("clinics"), ["job.rounds=2"])
    done = simulate(scenario, tmp_path / "world")
    finish(scenario, done, tmp_path / "run")
    run = read_run(tmp_path / "run")
    course, own = course_of(run, simulated_work(run)), [site.train for site in rebuilt(run.facts)]
    one, two, other = (flatten(shadow(course, own, place).model) for place in ((1, 0), (1, 0), (1, 1)))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)

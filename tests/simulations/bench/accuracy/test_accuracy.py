"""Measured accuracies: real trainings under the promised epsilon, in one place and at sites."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from client.guard import Guard
from common.errors import Code, Refusal
from common.models.front import parted
from common.parameters import flatten
from common.privacy.accounting import epsilon
from common.privacy.clipping.opacus_engine import OpacusEngine
from simulations.bench.accuracy import measure as measuring
from simulations.bench.accuracy.arrangements import Task, train
from simulations.bench.accuracy.material import Larder, model_for
from simulations.bench.accuracy.measure import measure
from simulations.bench.accuracy.picture import draw
from simulations.bench.accuracy.studies import DELTA, STUDIES
from simulations.bench.door import app

SHORT = replace(STUDIES["digits-8"], epochs=2)
KEYS = {
    *("study", "data", "model", "sites", "epsilon", "delta", "noise_multiplier", "steps", "sampling_rate", "seeds"),
    *("accuracies", "accuracy", "deviation", "least", "engine", "cpu_seconds", "published", "source", "aim", "claim"),
}


@pytest.fixture(scope="module")
def larder():
    return Larder()


def silent(*_, **__):
    """No progress bar."""


def task_of(larder, sites, seed=0):
    material = larder.get(SHORT, seed)
    _, head = parted(model_for(SHORT, (1, 8, 8), seed))
    return Task(SHORT, head, OpacusEngine(), material.train, sites, seed)


def run(*words):
    done = CliRunner().invoke(app, ["privacy-accuracy", *words])
    return done.exit_code, done.stdout


def test_the_command_prints_rows_and_leaves_a_figure(tmp_path, monkeypatch):
    monkeypatch.setitem(STUDIES, "digits-8", SHORT)
    words = ["--study", "digits-8", "--sites", "1", "--sites", "3", "--seeds", "2", "--out", str(tmp_path / "out")]
    code, printed = run(*words, "--json")
    assert code == 0
    found = json.loads(printed.splitlines()[-1])
    assert [(row["study"], row["sites"]) for row in found["rows"]] == [("digits-8", 1), ("digits-8", 3)]
    for row in found["rows"]:
        assert row.keys() >= KEYS
        assert len(row["accuracies"]) == row["seeds"] == 2
        assert min(row["accuracies"]) == row["least"] <= row["accuracy"] <= 1
        assert row["epsilon"] <= SHORT.epsilon
        assert "one record" in row["claim"][0]
    assert "colluding sites" in " ".join(found["rows"][1]["claim"])
    assert json.loads((tmp_path / "out" / "rows.json").read_text())["rows"] == found["rows"]
    assert ElementTree.fromstring((tmp_path / "out" / "privacy-accuracy.svg").read_text()).tag.endswith("svg")
    assert run("--out", str(tmp_path / "out"))[0] == 3


def test_what_cannot_be_measured_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HUSHFED_DATA", str(tmp_path))
    for words, told in (
        (["--study", "mnist-cnn-3", "--sites", "1"], "HUSHFED_DATA"),
        (["--study", "mnist-cnn"], "nearest"),
        (["--full", "--study", "digits-8"], "names all studies"),
    ):
        code, printed = run(*words, "--json")
        assert code == 3
        assert told in printed


def test_noise_is_that_of_the_same_promise_in_both_arrangements(larder):
    """Must: cost what an accountant finds from rate, noise and steps. Must not: count on the noise of every site."""
    for sites, honest in ((1, 1), (4, 3)):
        plan = task_of(larder, sites).plan()
        steps = plan.steps * plan.releases
        assert (plan.mode, plan.honest) == ("M1" if sites == 1 else "M2", honest)
        assert steps == task_of(larder, sites).steps
        found = epsilon(q=plan.sampling_rate, sigma=plan.noise_multiplier, steps=steps, delta=DELTA)
        # at epsilon 8 the distance of integer noise from a Gaussian takes a quarter of delta (times e^epsilon)
        assert found == pytest.approx(SHORT.epsilon, rel=0.1)
        assert found <= SHORT.epsilon + 1e-3
        deviation = plan.sum_deviation * np.sqrt(honest)
        assert deviation == pytest.approx(plan.noise_multiplier * plan.clip, rel=0.01)


def test_a_training_starts_with_its_seed_and_never_repeats_its_noise(larder):
    task = task_of(larder, 1)
    before = flatten(task.head)
    train(task, task.plan())
    again = task_of(larder, 1)
    assert (flatten(again.head) == before).all()
    train(again, again.plan())
    assert (flatten(again.head) != flatten(task.head)).any()
    assert (larder.get(SHORT, 1).test.inputs != larder.get(SHORT, 0).test.inputs).any()


def test_sites_pay_for_every_round_and_their_sum_is_the_gradient_of_all(larder, monkeypatch):
    """Without noise the sum over sites moves the model by the mean clipped gradient, to the fineness of integers."""
    task = task_of(larder, 3)
    short = replace(SHORT, epochs=SHORT.batch / len(task.records))  # one round
    task = replace(task, study=short)
    plan = task.plan()
    assert plan.releases == 1
    seen, charged = [], []
    monkeypatch.setattr("client.guard.integer_noise", lambda plan, entropy: np.zeros(plan.dimension, np.int64))
    monkeypatch.setattr(
        "simulations.bench.accuracy.arrangements.poisson", lambda count, *_: seen.append(count) or np.arange(count)
    )
    real = Guard.reserve
    monkeypatch.setattr(Guard, "reserve", lambda *args: charged.append(real(*args)) or charged[-1])
    bench, before = task.bench, flatten(task.head).astype(np.float64)
    whole = bench.engine.clipped_sum(
        bench.model, bench.task.losses, task.records.inputs, task.records.labels, plan.clip
    ).total
    train(task, plan)
    assert sum(seen) == len(task.records)
    assert len(charged) == 3
    batch = plan.sampling_rate * len(task.records)
    expected = -short.rate * whole / batch
    assert np.allclose(flatten(task.head) - before, expected, atol=1e-6)
    with pytest.raises(Refusal) as refused:
        train(task, replace(plan, releases=2))  # the limit affords one
    assert refused.value.code is Code.BUDGET_EXHAUSTED


def test_features_are_kept_for_the_seeds_and_budgets_that_share_them(larder, monkeypatch):
    monkeypatch.setattr("simulations.bench.accuracy.material._material", lambda study, seed: object())
    fresh = Larder()
    scatter = STUDIES["mnist-scatternet-3"]
    first = fresh.get(scatter, 0)
    assert fresh.get(STUDIES["mnist-scatternet-1"], 1) is first
    assert fresh.get(STUDIES["fashion-scatternet-3"], 0) is not first
    assert fresh.get(SHORT, 0) is not fresh.get(SHORT, 1)


def test_the_figure_shows_every_seed_the_mean_and_what_others_report(larder, monkeypatch):
    monkeypatch.setattr(measuring, "train", lambda task, plan: None)
    row = measure(SHORT, 1, [0, 1, 2], larder, silent)
    ours = draw([row])
    beside = draw([row, replace(row, sites=10, published=0.987, source="Somebody <2021>")])
    assert ours.count("<circle") == 2 + 3
    assert beside.count("<circle") == 2 + 6
    assert beside.count("<path") == 1 + 1  # legend and figure
    assert "Somebody &lt;2021&gt;: 98.7%" in beside
    assert ElementTree.fromstring(beside).tag.endswith("svg")

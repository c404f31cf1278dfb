"""Local private steps: Opacus' arithmetic, our randomness, and no way for one record to move a sum further."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest
import torch
from torch import nn

from client import private_step
from client.craft import unpaid
from client.private_step import train_privately
from client.trainer import Workbench
from common.data import Records
from common.errors import Refusal
from common.learning.plan import TrainingPlan
from common.parameters import flatten
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.plan import PrivacySettings, plan_training
from common.randomness import ReplayEntropy, SystemEntropy, child


def plan(noise="replay", steps=4, rate=0.5, epsilon=4.0, clip=0.5):
    settings = PrivacySettings(
        mode="M1", unit="record", epsilon=epsilon, delta=1e-5, clip=clip, sampling_rate=rate, spare_rounds=0,
        evaluation_epsilon=1.0, noise=noise,
    )  # fmt: skip
    return plan_training(settings, rounds=2, local_steps=steps, dimension=8, quorum=2, sites=2, records=200)


def bench(optimizer="sgd", **more):
    model = nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=child(1, "model")))
    training = TrainingPlan(learning_rate=0.1, optimizer=optimizer, local_steps=4, **more)
    return Workbench(model, training.task(3), training, torch.device("cpu"), OpacusEngine())


def records(count=40):
    stream = child(2, "records")
    inputs = torch.randn(count, 3, generator=stream)
    labels = torch.randint(2, (count,), generator=stream)
    return Records(inputs, labels, torch.zeros(count, dtype=torch.long), tuple(bytes([i]) * 16 for i in range(count)))


def trained(some=None, chosen=None, workbench=None, sampling=1, noise=2, batch=20.0):
    return train_privately(
        workbench or bench(), records() if some is None else some, chosen or plan(), batch,
        sampling=ReplayEntropy(sampling), noise=ReplayEntropy(noise), executed=unpaid,
    )  # fmt: skip


def test_the_same_streams_give_the_same_update_whatever_the_global_seed():
    torch.manual_seed(0)
    first = trained()
    torch.manual_seed(1)
    assert np.array_equal(trained().value, first.value)
    assert not np.array_equal(trained(noise=3).value, first.value)
    assert not np.array_equal(trained(sampling=3).value, first.value)
    assert (first.plan_id, first.steps) == (plan().plan_id, 4)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_without_noise_a_step_is_the_one_of_opacus(optimizer, monkeypatch):
    """Composed equals by hand: Opacus' own optimizer and module, on the same batch, without noise."""
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    monkeypatch.setattr("client.private_step.normals", lambda count, _: np.zeros(count))
    some, ours, theirs = records(), bench(optimizer), bench(optimizer)
    found = trained(some, plan(rate=1.0), ours, batch=40.0)
    wrapped = GradSampleModule(theirs.model)
    stock = DPOptimizer(
        theirs.plan.optimizer_of(theirs.model), noise_multiplier=0.0, max_grad_norm=0.5, expected_batch_size=40
    )
    before = flatten(theirs.model).astype(np.float64)
    for _ in range(4):
        stock.zero_grad()
        theirs.task.losses(wrapped(some.inputs), some.labels).mean().backward()
        stock.step()
    assert np.allclose(found.value, flatten(theirs.model) - before, rtol=1e-3, atol=1e-6)


def test_an_empty_batch_is_a_step_of_noise_alone():
    nobody = records().take([])
    update = trained(nobody)
    assert (update.value != 0).all()
    assert np.array_equal(trained(records(), plan(rate=0.04), sampling=8).value != 0, np.ones(8, bool))


def test_noise_has_the_deviation_of_the_plan():
    chosen = plan(steps=1)
    nobody, changes = records().take([]), []
    for seed in range(300):
        changes.append(trained(nobody, chosen, noise=seed, batch=1.0).value)
    assert np.std(changes) == pytest.approx(0.1 * chosen.sigma, rel=0.06)


def test_a_record_that_is_not_finite_adds_nothing():
    some = records()
    bad = some.inputs.clone()
    bad[5] = float("nan")
    poisoned = Records(bad, some.labels, some.groups, some.ids)
    kept = [row for row in range(len(some)) if row != 5]
    chosen = plan(rate=1.0)
    assert np.allclose(trained(poisoned, chosen).value, trained(some.take(kept), chosen).value, atol=1e-7)


def test_one_record_moves_a_step_by_at_most_the_clip():
    some, chosen = records(), plan(rate=1.0, steps=1)
    loud = some.inputs.clone()
    loud[0] = 1e6
    with_loud = trained(Records(loud, some.labels, some.groups, some.ids), chosen, batch=1.0)
    without = trained(some.take(range(1, len(some))), chosen, batch=1.0)
    assert np.linalg.norm(with_loud.value - without.value) <= 0.1 * chosen.clip * (1 + 1e-4)


def test_the_proximal_pull_shortens_the_update():
    free, held = trained(), trained(workbench=bench(proximal=5.0))
    assert np.linalg.norm(held.value) < np.linalg.norm(free.value)


def test_plan_and_entropy_must_belong_together():
    with pytest.raises(Refusal, match="entropy"):
        trained(chosen=plan(noise="system"))
    with pytest.raises(Refusal, match="entropy"):
        train_privately(
            bench(), records(), plan(), 20.0, sampling=ReplayEntropy(1), noise=SystemEntropy(), executed=unpaid
        )


def test_training_that_diverges_releases_nothing():
    workbench = bench()
    with torch.no_grad():
        workbench.model.weight.fill_(3e38)
    with pytest.raises(Refusal):
        train_privately(
            Workbench(workbench.model, workbench.task, TrainingPlan(learning_rate=1e38), workbench.device,
                      workbench.engine),
            records(), plan(), 1e-3, sampling=ReplayEntropy(1), noise=ReplayEntropy(2), executed=unpaid,
        )  # fmt: skip


def test_the_ledger_hears_of_every_step_before_its_records_and_noise_are_drawn(monkeypatch):
    events = []

    def overheard(name, real):
        return lambda *given: events.append(name) or real(*given)

    for name in ("poisson", "normals"):
        monkeypatch.setattr(private_step, name, overheard(name, getattr(private_step, name)))
    train_privately(
        bench(), records(), plan(), 20.0, sampling=ReplayEntropy(1), noise=ReplayEntropy(2), executed=events.append
    )
    assert events == [event for step in range(4) for event in (step, "poisson", "normals")]


def test_a_ledger_that_cannot_be_written_ends_the_work_before_the_next_step(monkeypatch):
    drawn = []
    monkeypatch.setattr(private_step, "normals", lambda size, entropy: drawn.append(1) or np.zeros(size))

    def executed(steps):
        if steps == 2:
            raise sqlite3.OperationalError

    with pytest.raises(sqlite3.OperationalError):
        train_privately(
            bench(), records(), plan(), 20.0, sampling=ReplayEntropy(1), noise=ReplayEntropy(2), executed=executed
        )
    assert len(drawn) == 2

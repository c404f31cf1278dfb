"""Losses, tasks, optimizers and the training plan."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from common import config
from common.errors import Code, Refusal
from common.learning import losses_door, optimizers_door
from common.learning.losses import LOSSES
from common.learning.optimizers import OPTIMIZERS, optimizer
from common.learning.plan import TrainingPlan
from common.learning.tasks import task


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [2, 5])
def test_the_loss_of_a_record_is_the_same_alone_and_in_a_batch(name: str, classes: int) -> None:
    chosen = task(classes, name)
    logits, labels = torch.randn(6, chosen.outputs), torch.randint(classes, (6,))
    together = chosen.losses(logits, labels)
    alone = torch.cat([chosen.losses(logits[i : i + 1], labels[i : i + 1]) for i in range(6)])
    assert together.shape == (6,)
    assert torch.allclose(together, alone)


def test_losses_have_the_values_of_their_formulas() -> None:
    logit, two = torch.tensor([[math.log(3.0)]]), torch.tensor([[0.0, math.log(3.0)]])
    one = torch.tensor([1])
    for logits in (logit, two):
        assert task(2, "cross-entropy").losses(logits, one).item() == pytest.approx(-math.log(0.75), rel=1e-6)
        assert task(2, "focal", focus=2.0).losses(logits, one).item() == pytest.approx(
            0.0625 * -math.log(0.75), rel=1e-5
        )
        assert task(2, "focal", focus=0.0).losses(logits, one).item() == pytest.approx(-math.log(0.75), rel=1e-6)
    assert task(2, "brier").losses(logit, one).item() == pytest.approx(0.0625)
    assert task(2, "brier").losses(two, one).item() == pytest.approx(0.125)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("value", [0.0, 40.0, -40.0, 1e4, -1e4])
def test_gradients_stay_finite_at_extreme_logits(name: str, value: float) -> None:
    logits = torch.full((1, 1), value, requires_grad=True)
    task(2, name).losses(logits, torch.tensor([1])).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_task_judges_predictions() -> None:
    two, many = task(2), task(3)
    assert (two.name, two.outputs, many.name, many.outputs) == ("binary", 1, "multiclass", 3)
    logits = torch.tensor([[-1.0], [0.0], [2.0]])
    assert two.predictions(logits).tolist() == [0, 0, 1]
    assert two.correct(logits, torch.tensor([0, 1, 1])).tolist() == [1.0, 0.0, 1.0]
    assert many.predictions(torch.tensor([[0.0, 1.0, -1.0]])).tolist() == [1]
    for chosen in (two, many):
        assert torch.allclose(chosen.scores(torch.randn(4, chosen.outputs)).sum(1), torch.ones(4))


def test_each_optimizer_takes_its_first_step_downhill() -> None:
    sizes = {"sgd": 0.2, "momentum": 0.2, "adam": 0.1}
    for name in OPTIMIZERS:
        weight = nn.Parameter(torch.tensor([1.0]))
        chosen = optimizer(name, [weight], 0.1)
        weight.grad = torch.tensor([2.0])
        chosen.step()
        assert weight.item() == pytest.approx(1.0 - sizes[name], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "learning_rate"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"learning_rate": 1.0, "optimizer": "adma"}, "nearest is 'adam'"),
        ({"learning_rate": 1.0, "optimizer": "adam", "optimizer_settings": {"beta": 0.9}}, "no setting 'beta'"),
        ({"learning_rate": 1.0, "optimizer": "momentum", "optimizer_settings": {"momentum": 1.0}}, "below 1"),
        ({"learning_rate": 1.0, "optimizer_settings": {"weight_decay": -1.0}}, "not negative"),
        ({"learning_rate": 1.0, "loss": "crossentropy"}, "nearest is 'cross-entropy'"),
        ({"learning_rate": 1.0, "loss": "focal", "loss_settings": {"focus": -1.0}}, "not negative"),
        ({"learning_rate": 1.0, "local_steps": 0}, "between 1 and"),
        ({"learning_rate": 1.0, "proximal": float("inf")}, "not negative"),
        ({"learning_rate": 1.0, "lerning_rate": 1.0}, "nearest is 'learning_rate'"),
    ],
)
def test_a_plan_that_cannot_be_trained_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(Refusal, match=told) as refused:
        config.load(TrainingPlan, settings)
    assert refused.value.code is Code.CONFIG_INVALID


def test_a_plan_makes_the_optimizer_and_task_it_names() -> None:
    plan = config.load(
        TrainingPlan,
        {"learning_rate": 0.5, "optimizer": "momentum", "optimizer_settings": {"momentum": 0.5, "nesterov": True}},
    )
    group = plan.optimizer_of(nn.Linear(2, 1)).param_groups[0]
    assert (group["lr"], group["momentum"], group["nesterov"]) == (0.5, 0.5, True)
    assert plan.task(4).outputs == 4
    assert config.load(TrainingPlan, config.plain(plan)) == plan


@pytest.mark.parametrize(("door", "known"), [(losses_door.app, LOSSES), (optimizers_door.app, OPTIMIZERS)])
def test_the_doors_list_every_entry(door: Any, known: Any) -> None:
    result = CliRunner().invoke(door, ["list", "--json"])
    assert [entry["name"] for entry in json.loads(result.stdout.splitlines()[-1])["entries"]] == list(known)

"""What the guarantee rests on: one record moves the clipped sum by 2 C at most, on every model that is accepted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from opacus.layers import DPLSTM
from torch import nn

from common.errors import Refusal
from common.learning.tasks import task
from common.models.catalogue import build
from common.privacy.clipping.attention import Attention
from common.privacy.clipping.choice import AUTO, ENGINES
from common.privacy.clipping.contributions import Dense
from common.privacy.clipping.engine import ClipEngine
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.clipping.validate import validate

SHAPE = (2, 6, 6)


class Sequences(nn.Module):
    """Pixels as a sequence of rows, through attention and a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm, self.cells = Attention(12, 2), nn.RMSNorm(12), DPLSTM(12, 5, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 2, 1, 3).flatten(2)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return self.out(self.cells(x)[0].mean(1))


class Own(nn.Module):
    """A parameter beside its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.out = nn.Parameter(torch.ones(72)), nn.Linear(72, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x.flatten(1) * self.scale)


def network(*between: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3), *between, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


MODELS = {
    "mlp": build("mlp", inputs=SHAPE, classes=3, norm="layer"),
    "cnn": build("cnn", inputs=SHAPE, classes=3, norm="group"),
    "plain": network(),
    "instance norm": network(nn.InstanceNorm2d(4, affine=True)),
    "frozen": network(nn.GroupNorm(2, 4).requires_grad_(False)),
    "sequences": Sequences(),
    "own parameter": Own(),
    "batch norm": network(nn.BatchNorm2d(4)),
    "batch norm without parameters": network(nn.BatchNorm2d(4, affine=False)),
    "frozen batch norm": network(nn.BatchNorm2d(4).requires_grad_(False)),
    "batch norm without statistics": network(nn.BatchNorm2d(4, affine=False, track_running_stats=False)),
    "batch norm inside": network(nn.Sequential(nn.Identity(), nn.Sequential(nn.BatchNorm2d(4, affine=False)))),
}
REFUSED = {name for name in MODELS if "batch" in name}


def accepted(model: nn.Module) -> bool:
    try:
        validate(model, SHAPE)
    except Refusal:
        return False
    return True


def engines(name: str) -> list[ClipEngine]:
    return [ENGINES[each](3) for each in AUTO if name != "own parameter" or each == "vmap"]


def moved(engine: ClipEngine, model: nn.Module, inputs: torch.Tensor, other: torch.Tensor, bound: float) -> float:
    """How far the sum moves when one record becomes another, in units of the bound."""
    labels = torch.arange(len(inputs)) % 3
    changed = inputs.clone()
    changed[1] = other
    before, after = (engine.clipped_sum(model, task(3).losses, x, labels, bound).total for x in (inputs, changed))
    return float(np.linalg.norm(before - after)) / bound


def test_models_with_batch_norm_are_refused_and_no_others() -> None:
    assert {name for name, model in MODELS.items() if not accepted(model)} == REFUSED


@pytest.mark.parametrize("name", MODELS.keys() - REFUSED)
@given(seed=some.integers(0, 999), scale=some.sampled_from([0.1, 1.0, 30.0]), bound=some.sampled_from([1e-3, 0.3]))
@settings(max_examples=6)
def test_one_record_moves_the_sum_by_two_bounds_at_most(name: str, seed: int, scale: float, bound: float) -> None:
    stream = torch.Generator().manual_seed(seed)
    inputs = torch.randn(5, *SHAPE, generator=stream)
    other = scale * torch.randn(SHAPE, generator=stream)
    for engine in engines(name):
        assert moved(engine, MODELS[name], inputs, other, bound) <= 2 * (1 + 1e-6)


@pytest.mark.parametrize("name", ["batch norm without parameters", "frozen batch norm"])
def test_what_is_refused_would_have_broken_the_bound(name: str) -> None:
    """Opacus accepts both: its validator walks trainable layers only."""
    stream = torch.Generator().manual_seed(3)
    inputs = torch.randn(8, *SHAPE, generator=stream)
    worst = max(
        moved(OpacusEngine("functorch"), MODELS[name], inputs, scale * torch.randn(SHAPE, generator=stream), 1e-3)
        for scale in (30.0, 300.0)
    )
    assert worst > 2.5


@given(seed=some.integers(0, 999))
@settings(max_examples=10)
def test_many_equal_records_add_up_without_losing_the_bound(seed: int) -> None:
    """The sum is large and the bound small against it: float32 would round by far more than 1e-6 of the bound."""
    one = torch.randn(1, 1000, generator=torch.Generator().manual_seed(seed))
    factor = 1e-3 / one.double().norm()
    totals = []
    for count in (299, 300):
        total = torch.zeros(1000, dtype=torch.float64)
        Dense(one.repeat(count, 1)).add(total, factor.repeat(count))
        totals.append(total)
    assert float((totals[1] - totals[0]).norm()) <= 1e-3 * (1 + 1e-6)

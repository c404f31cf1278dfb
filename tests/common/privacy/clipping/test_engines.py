"""Clipping engines: equal to one record at a time, bounded by one record, blind to broken ones."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from numpy.typing import NDArray
from torch import nn

from common.errors import Refusal
from common.learning.tasks import task
from common.models.catalogue import build
from common.privacy.clipping import engine as engine_module
from common.privacy.clipping.bookkeeping_engine import BookKeepingEngine
from common.privacy.clipping.engine import ClipEngine
from common.privacy.clipping.ghost_engine import GhostEngine
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.clipping.reference_engine import ReferenceEngine
from common.privacy.clipping.vmap_engine import VmapEngine
from common.randomness import child

MODELS = {
    "logistic": build("logistic", inputs=(6,), classes=2),
    "mlp": build("mlp", inputs=(6,), classes=3, norm="group", hidden=(8, 4)),
    "cnn": build("cnn", inputs=(1, 8, 8), classes=10, norm="group"),
}
CASES = {"logistic": ((6,), 2), "mlp": ((6,), 3), "cnn": ((1, 8, 8), 10)}
REFERENCE = ReferenceEngine()
FAST: list[ClipEngine] = [
    BookKeepingEngine(4),
    VmapEngine(4),
    OpacusEngine("faster"),
    OpacusEngine("hooks"),
    OpacusEngine("functorch"),
]
ENGINES: list[ClipEngine] = [*FAST, REFERENCE]
EVERY: list[ClipEngine] = [*ENGINES, GhostEngine(4)]


def named(each: ClipEngine) -> str:
    return getattr(each, "way", type(each).__name__)


def batch(name: str, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    shape, classes = CASES[name]
    stream = child(seed, "batch", name)
    return torch.randn(count, *shape, generator=stream), torch.randint(classes, (count,), generator=stream)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("each", EVERY, ids=named)
@pytest.mark.parametrize("bound", [0.05, 1.0, 100.0])
def test_every_engine_gives_what_one_record_at_a_time_gives(each: ClipEngine, name: str, bound: float) -> None:
    inputs, labels = batch(name, 9)
    losses = task(CASES[name][1]).losses
    fast, slow = (one.clipped_sum(MODELS[name], losses, inputs, labels, bound) for one in (each, REFERENCE))
    assert np.abs(fast.total - slow.total).max() <= 1e-5 * np.abs(slow.total).max()
    assert torch.allclose(fast.losses, slow.losses, atol=1e-5)
    assert torch.allclose(fast.outputs, slow.outputs, atol=1e-5)
    assert fast.bad == slow.bad == 0


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("each", EVERY, ids=named)
def test_without_clipping_the_sum_is_the_gradient_of_the_summed_loss(each: ClipEngine, name: str) -> None:
    inputs, labels = batch(name, 9)
    losses = task(CASES[name][1]).losses
    found = each.clipped_sum(MODELS[name], losses, inputs, labels, 1e9).total
    right = torch.autograd.grad(losses(MODELS[name](inputs), labels).sum(), list(MODELS[name].parameters()))
    assert np.allclose(found, torch.cat([g.reshape(-1) for g in right]).double().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("each", ENGINES, ids=named)
@given(seed=some.integers(0, 999), bound=some.floats(1e-3, 10.0), gone=some.integers(0, 4))
@settings(max_examples=25, deadline=None)
def test_one_record_moves_the_sum_by_at_most_the_bound(each: ClipEngine, seed: int, bound: float, gone: int) -> None:
    inputs, labels = batch("mlp", 5, seed)
    inputs = inputs * 10.0 ** (seed % 7)
    rest = [row for row in range(5) if row != gone]
    losses = task(3).losses
    whole = each.clipped_sum(MODELS["mlp"], losses, inputs, labels, bound).total
    less = each.clipped_sum(MODELS["mlp"], losses, inputs[rest], labels[rest], bound).total
    assert np.linalg.norm(whole - less) <= bound * (1 + 1e-6)


@pytest.mark.parametrize("each", ENGINES, ids=named)
def test_a_single_record_never_exceeds_the_bound(each: ClipEngine) -> None:
    inputs, labels = batch("mlp", 30)
    for row in range(30):
        one = each.clipped_sum(MODELS["mlp"], task(3).losses, inputs[row : row + 1] * 1e3, labels[row : row + 1], 0.1)
        assert np.linalg.norm(one.total) <= 0.1


@pytest.mark.parametrize("each", ENGINES, ids=named)
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 3e38])
def test_a_broken_record_adds_nothing_and_is_counted(each: ClipEngine, broken: float) -> None:
    inputs, labels = batch("logistic", 6)
    model = build("mlp", inputs=(6,), classes=2, activation="relu")
    losses = task(2).losses
    rest = [0, 1, 3, 4, 5]
    right = each.clipped_sum(model, losses, inputs[rest], labels[rest], 1.0)
    inputs[2] = broken
    found = each.clipped_sum(model, losses, inputs, labels, 1.0)
    if broken == 3e38:  # large but perhaps representable: whatever happens, it is bounded
        assert np.linalg.norm(found.total - right.total) <= 1.0 + 1e-6
    else:
        assert np.allclose(found.total, right.total, atol=1e-7)
        assert found.bad == 1
        assert found.usable.tolist() == [True, True, False, True, True, True]
        assert found.losses[2] == 0.0
    assert np.isfinite(found.total).all()
    assert torch.isfinite(found.losses).all()


@pytest.mark.parametrize("each", ENGINES, ids=named)
def test_an_empty_batch_gives_zeros(each: ClipEngine) -> None:
    found = each.clipped_sum(MODELS["cnn"], task(10).losses, torch.zeros(0, 1, 8, 8), torch.zeros(0).long(), 1.0)
    assert found.total.shape == (sum(p.numel() for p in MODELS["cnn"].parameters()),)
    assert not found.total.any()
    assert (found.bad, len(found.losses)) == (0, 0)


@pytest.mark.parametrize("each", FAST, ids=named)
def test_micro_batches_change_nothing_but_rounding(each: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = batch("cnn", 11)

    def total(engine: ClipEngine) -> NDArray[np.float64]:
        return engine.clipped_sum(MODELS["cnn"], task(10).losses, inputs, labels, 0.5).total

    whole = total(replace(each, records=None))
    assert np.allclose(whole, total(replace(each, records=3)), atol=1e-6)
    monkeypatch.setattr(engine_module, "FLOATS_AT_ONCE", 1)  # a model that is too large for two records
    assert np.allclose(whole, total(each), atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 7, 64, 65, 200])
def test_micro_batches_hold_each_record_once_and_are_of_nearly_equal_size(count: int) -> None:
    parts = list(engine_module.micro_batches(count, 1000, torch.device("cpu")))
    assert [row for part in parts for row in range(count)[part]] == list(range(count))
    sizes = {part.stop - part.start for part in parts}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert max(sizes, default=0) <= engine_module.RECORDS_AT_ONCE


@pytest.mark.parametrize("each", EVERY, ids=named)
def test_the_same_batch_gives_the_same_bits_and_leaves_the_model_as_it_was(each: ClipEngine) -> None:
    model = build("mlp", inputs=(6,), classes=3)
    model.eval()
    weight = next(model.parameters())
    weight.grad = torch.ones_like(weight)
    before = [set(vars(module)) for module in model.modules()]
    inputs, labels = batch("mlp", 20)
    first, second = (each.clipped_sum(model, task(3).losses, inputs, labels, 1.0).total for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert not model.training
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert [set(vars(module)) for module in model.modules()] == before


@pytest.mark.parametrize("each", FAST, ids=named)
def test_a_model_that_fails_is_left_as_it_was(each: ClipEngine) -> None:
    model = build("mlp", inputs=(6,), classes=3).eval()
    before = [set(vars(module)) for module in model.modules()]
    with pytest.raises((RuntimeError, Refusal)):
        each.clipped_sum(model, task(3).losses, torch.zeros(4, 5), torch.zeros(4).long(), 1.0)
    assert [set(vars(module)) for module in model.modules()] == before
    assert not model.training


@pytest.mark.parametrize("each", EVERY, ids=named)
def test_frozen_parameters_are_no_part_of_the_sum(each: ClipEngine) -> None:
    model = build("mlp", inputs=(6,), classes=3)
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad_(False)
    inputs, labels = batch("mlp", 4)
    fast, slow = (one.clipped_sum(model, task(3).losses, inputs, labels, 1.0).total for one in (each, REFERENCE))
    assert len(fast) == 32 * 3 + 3
    assert np.allclose(fast, slow, atol=1e-6)


@pytest.mark.parametrize("each", FAST, ids=named)
def test_tied_weights_are_clipped_together(each: ClipEngine) -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 3))
    inputs, labels = torch.randn(5, 4), torch.randint(3, (5,))
    other = nn.Linear(4, 4)
    other.weight = shared.weight
    for tied in (model, nn.Sequential(shared, nn.Tanh(), other, nn.Linear(4, 3))):
        fast, slow = (one.clipped_sum(tied, task(3).losses, inputs, labels, 0.2).total for one in (each, REFERENCE))
        assert slow.all()
        assert np.allclose(fast, slow, atol=1e-6)


@pytest.mark.parametrize("each", FAST, ids=named)
def test_a_parameter_that_the_loss_does_not_depend_on_gets_zeros(each: ClipEngine) -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)

    total = each.clipped_sum(Half(), task(3).losses, torch.randn(5, 4), torch.randint(3, (5,)), 0.2).total
    assert total[:15].any()
    assert not total[15:].any()


@pytest.mark.parametrize("each", ENGINES, ids=named)
@pytest.mark.parametrize(("scale", "bound"), [(1e25, 1.0), (1e-25, 1e-28)])
def test_gradients_whose_squares_have_no_float32_are_clipped_as_well(
    each: ClipEngine, scale: float, bound: float
) -> None:
    one = torch.full((1, 4), scale), torch.zeros(1, dtype=torch.long)
    found = each.clipped_sum(nn.Linear(4, 3), lambda outputs, _: outputs.sum(1), *one, bound)
    assert found.bad == 0
    assert bound * (1 - 1e-5) <= np.linalg.norm(found.total) <= bound or scale < 1


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(Refusal, match="clipping bound"):
        OpacusEngine().clipped_sum(MODELS["mlp"], task(3).losses, *batch("mlp", 2), bound)


def test_inputs_and_labels_must_match() -> None:
    with pytest.raises(Refusal, match="differ in number"):
        OpacusEngine().clipped_sum(MODELS["mlp"], task(3).losses, torch.zeros(2, 6), torch.zeros(3).long(), 1.0)

"""Clipping engines: equal to one record at a time, bounded by one record, blind to broken ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

from common.errors import Refusal
from common.learning.tasks import task
from common.models.catalogue import build
from common.privacy.clipping import engine as engine_module
from common.privacy.clipping.engine import ClipEngine
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.clipping.reference_engine import ReferenceEngine
from common.randomness import child

MODELS = {
    "logistic": build("logistic", inputs=(6,), classes=2),
    "mlp": build("mlp", inputs=(6,), classes=3, norm="group", hidden=(8, 4)),
    "cnn": build("cnn", inputs=(1, 8, 8), classes=10, norm="group"),
}
CASES = {"logistic": ((6,), 2), "mlp": ((6,), 3), "cnn": ((1, 8, 8), 10)}
ENGINES: list[ClipEngine] = [OpacusEngine(), ReferenceEngine()]


def batch(name: str, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    shape, classes = CASES[name]
    stream = child(seed, "batch", name)
    return torch.randn(count, *shape, generator=stream), torch.randint(classes, (count,), generator=stream)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("bound", [0.05, 1.0, 100.0])
def test_opacus_gives_what_one_record_at_a_time_gives(name: str, bound: float) -> None:
    inputs, labels = batch(name, 9)
    losses = task(CASES[name][1]).losses
    fast, slow = (each.clipped_sum(MODELS[name], losses, inputs, labels, bound) for each in ENGINES)
    assert np.abs(fast.total - slow.total).max() <= 1e-5 * np.abs(slow.total).max()
    assert torch.allclose(fast.losses, slow.losses, atol=1e-5)
    assert torch.allclose(fast.outputs, slow.outputs, atol=1e-5)
    assert fast.bad == slow.bad == 0


@pytest.mark.parametrize("name", CASES)
def test_without_clipping_the_sum_is_the_gradient_of_the_summed_loss(name: str) -> None:
    inputs, labels = batch(name, 9)
    losses = task(CASES[name][1]).losses
    found = OpacusEngine().clipped_sum(MODELS[name], losses, inputs, labels, 1e9).total
    right = torch.autograd.grad(losses(MODELS[name](inputs), labels).sum(), list(MODELS[name].parameters()))
    assert np.allclose(found, torch.cat([g.reshape(-1) for g in right]).double().numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("each", ENGINES)
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


@pytest.mark.parametrize("each", ENGINES)
def test_a_single_record_never_exceeds_the_bound(each: ClipEngine) -> None:
    inputs, labels = batch("mlp", 30)
    for row in range(30):
        one = each.clipped_sum(MODELS["mlp"], task(3).losses, inputs[row : row + 1] * 1e3, labels[row : row + 1], 0.1)
        assert np.linalg.norm(one.total) <= 0.1


@pytest.mark.parametrize("each", ENGINES)
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


@pytest.mark.parametrize("each", ENGINES)
def test_an_empty_batch_gives_zeros(each: ClipEngine) -> None:
    found = each.clipped_sum(MODELS["cnn"], task(10).losses, torch.zeros(0, 1, 8, 8), torch.zeros(0).long(), 1.0)
    assert found.total.shape == (sum(p.numel() for p in MODELS["cnn"].parameters()),)
    assert not found.total.any()
    assert (found.bad, len(found.losses)) == (0, 0)


def test_micro_batches_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, labels = batch("cnn", 11)
    whole = OpacusEngine().clipped_sum(MODELS["cnn"], task(10).losses, inputs, labels, 0.5)
    monkeypatch.setattr(engine_module, "RECORDS_AT_ONCE", 3)
    parts = OpacusEngine().clipped_sum(MODELS["cnn"], task(10).losses, inputs, labels, 0.5)
    assert np.allclose(whole.total, parts.total, atol=1e-6)
    assert len(parts.losses) == 11


def test_the_same_batch_gives_the_same_bits_and_leaves_the_model_as_it_was() -> None:
    model = build("mlp", inputs=(6,), classes=3)
    model.eval()
    weight = next(model.parameters())
    weight.grad = torch.ones_like(weight)
    inputs, labels = batch("mlp", 20)
    first, second = (OpacusEngine().clipped_sum(model, task(3).losses, inputs, labels, 1.0).total for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert not model.training
    assert weight.grad is not None
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_frozen_parameters_are_no_part_of_the_sum() -> None:
    model = build("mlp", inputs=(6,), classes=3)
    for parameter in list(model.parameters())[:2]:
        parameter.requires_grad_(False)
    inputs, labels = batch("mlp", 4)
    fast, slow = (each.clipped_sum(model, task(3).losses, inputs, labels, 1.0).total for each in ENGINES)
    assert len(fast) == 32 * 3 + 3
    assert np.allclose(fast, slow, atol=1e-6)


def test_tied_weights_are_clipped_together() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 3))
    inputs, labels = torch.randn(5, 4), torch.randint(3, (5,))
    fast, slow = (each.clipped_sum(model, task(3).losses, inputs, labels, 0.2).total for each in ENGINES)
    assert np.allclose(fast, slow, atol=1e-6)


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan"), float("inf")])
def test_a_bound_that_is_none_is_refused(bound: float) -> None:
    with pytest.raises(Refusal, match="clipping bound"):
        OpacusEngine().clipped_sum(MODELS["mlp"], task(3).losses, *batch("mlp", 2), bound)


def test_inputs_and_labels_must_match() -> None:
    with pytest.raises(Refusal, match="differ in number"):
        OpacusEngine().clipped_sum(MODELS["mlp"], task(3).losses, torch.zeros(2, 6), torch.zeros(3).long(), 1.0)

"""Records come back from their gradients exactly where they must, and not through noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from common.data import Records
from common.errors import Code, Refusal
from common.learning.tasks import task
from common.models.catalogue import build
from common.parameters import flatten
from common.privacy.clipping.reference_engine import ReferenceEngine
from common.randomness import child
from simulations.audits.gradient_inversion import by_division, by_optimisation, label_of
from simulations.audits.gradients import gradients, losses_of
from simulations.audits.likeness import psnr, ssim


def one(shape: tuple[int, ...], label: int, seed: int = 0) -> Records:
    inputs = torch.rand((1, *shape), generator=torch.Generator().manual_seed(seed))
    return Records(inputs, torch.tensor([label]), torch.zeros(1, dtype=torch.long), (bytes(16),))


def observed(model: nn.Module, classes: int, record: Records) -> np.ndarray:
    return gradients(model, task(classes).losses, record)[0].astype(np.float64)


@pytest.mark.parametrize(("name", "classes"), [("logistic", 2), ("logistic", 5), ("mlp", 2), ("mlp", 5)])
def test_a_linear_layer_gives_its_input_and_label_away_exactly(name, classes):
    for label in range(classes):
        model, record = build(name, inputs=(7,), classes=classes, seed=3), one((7,), label, label)
        seen = observed(model, classes, record)
        assert np.allclose(by_division(model, seen), record.inputs[0].numpy(), atol=1e-5)
        assert label_of(model, task(classes), seen) == label


def test_noise_on_the_gradient_keeps_the_record_back():
    """Must: be wrong by about the noise over the bias gradient. Must not: come out exact."""
    model, record = build("logistic", inputs=(7,), classes=2, seed=3), one((7,), 1)
    noisy = observed(model, 2, record) + 0.5 * np.random.default_rng(0).normal(size=8)
    assert np.abs(by_division(model, noisy) - record.inputs[0].numpy()).max() > 0.1


@pytest.mark.parametrize("name", ["logistic", "mlp", "cnn"])
def test_an_image_is_rebuilt_from_its_gradient_and_not_from_noise(name):
    model, record = build(name, inputs=(1, 8, 8), classes=10, seed=1), one((1, 8, 8), 4)
    image, seen = record.inputs[0].numpy(), observed(model, 10, record)
    noisy = seen + np.random.default_rng(0).normal(size=seen.size) * np.abs(seen).max()
    clear, veiled = (by_optimisation(model, task(10), each, (1, 8, 8), child(5, "x")) for each in (seen, noisy))
    assert ssim(image, clear) > (0.9 if name != "cnn" else 0.5)
    assert ssim(image, veiled) < 0.4
    assert psnr(image, clear) > psnr(image, veiled) + 5


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("bound", [0.0, 0.1])
def test_gradients_of_single_records_are_those_of_the_reference(name, bound):
    model, shape = build(name, inputs=(1, 8, 8), classes=3, seed=2), (1, 8, 8)
    records = [one(shape, label, label) for label in range(3)]
    whole = Records(
        torch.cat([each.inputs for each in records]), torch.arange(3), torch.zeros(3), tuple(map(bytes, range(3)))
    )
    found = gradients(model, task(3).losses, whole, bound)
    for row, each in zip(found, records, strict=True):
        by_hand = ReferenceEngine().clipped_sum(model, task(3).losses, each.inputs, each.labels, bound or 1e9)
        assert np.allclose(row, by_hand.total, atol=1e-6)
    assert found.shape == (3, flatten(model).size)
    assert np.allclose(losses_of(model, task(3).losses, whole)[1], losses_of(model, task(3).losses, records[1])[0])


def test_a_record_without_a_finite_gradient_has_none():
    model, record = build("logistic", inputs=(3,), classes=2, seed=0), one((3,), 1)
    record.inputs[0, 1] = float("nan")
    assert not gradients(model, task(2).losses, record, 1.0).any()


def test_models_that_these_attacks_do_not_fit_are_refused():
    convolution = build("cnn", inputs=(1, 8, 8), classes=3, seed=0)
    bare = build("logistic", inputs=(3,), classes=2, seed=0, bias=False)
    for act in (
        lambda: by_division(convolution, np.ones(flatten(convolution).size)),
        lambda: by_division(bare, np.ones(3)),
        lambda: label_of(bare, task(2), np.ones(3)),
    ):
        with pytest.raises(Refusal) as refused:
            act()
        assert refused.value.code is Code.MODEL_INVALID


def test_a_gradient_of_nothing_divides_by_nothing():
    model = build("logistic", inputs=(3,), classes=2, seed=0)
    assert not by_division(model, np.zeros(4)).any()

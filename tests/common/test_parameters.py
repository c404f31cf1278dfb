"""Parameters: one flat array that stands for a model, and nothing else is written into a model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from common.errors import Code, Refusal
from common.models.catalogue import build
from common.parameters import Layout, assign, checked, flatten, layout_of, model_digest, named

MODELS = {
    "logistic": build("logistic", inputs=(5,), classes=3, seed=1),
    "mlp": build("mlp", inputs=(5,), classes=2, seed=1),
    "cnn": build("cnn", inputs=(1, 8, 8), classes=10, seed=1),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_what_its_flat_array_says(name: str) -> None:
    model = MODELS[name]
    before, layout = flatten(model), layout_of(model)
    assert before.dtype == np.float32
    assert before.shape == (layout.size,)
    changed = before + np.arange(layout.size, dtype=np.float32)
    assign(model, changed)
    assert np.array_equal(flatten(model), changed)
    arrays = named(layout, changed)
    for key, parameter in model.named_parameters():
        assert np.array_equal(arrays[key], parameter.detach().numpy())
    assign(model, before)
    assert np.array_equal(flatten(model), before)


def test_the_flat_array_is_a_copy() -> None:
    model = MODELS["logistic"]
    before = flatten(model)
    flatten(model)[:] = 7.0
    assert np.array_equal(flatten(model), before)
    mine = before.copy()
    assign(model, mine)
    mine[:] = 7.0
    assert np.array_equal(flatten(model), before)


def test_frozen_parameters_and_buffers_never_travel() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3, affine=False), nn.Linear(3, 1))
    model[0].weight.requires_grad_(False)
    layout = layout_of(model)
    assert layout.names == ("0.bias", "2.weight", "2.bias")
    frozen = model[0].weight.clone()
    assign(model, np.ones(layout.size, np.float32))
    assert torch.equal(model[0].weight, frozen)
    assert flatten(nn.ReLU()).shape == (0,)


@given(st.integers(0, 40), st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 17))
def test_an_array_that_does_not_fit_changes_nothing(size: int, broken: float, place: int) -> None:
    model = MODELS["logistic"]
    before = flatten(model)
    wrong = np.ones(size, np.float32)
    if size == before.size:
        wrong[place % size] = broken
    with pytest.raises(Refusal) as refused:
        assign(model, wrong)
    assert refused.value.code is Code.UPDATE_INVALID
    assert np.array_equal(flatten(model), before)


def test_an_array_of_another_shape_is_refused() -> None:
    with pytest.raises(Refusal, match="this model has 4 parameters"):
        checked(np.ones((2, 2)), 4)


def test_the_digest_names_layout_and_every_bit() -> None:
    layout, flat = Layout(("a", "b"), ((2,), (1, 2))), np.array([1, 2, 3, 4], np.float32)
    assert model_digest(layout, flat) == model_digest(layout, flat.copy())
    nudged = flat.copy()
    nudged[0] = np.nextafter(nudged[0], np.float32(2))
    others = [(layout, nudged), (Layout(("b", "a"), ((2,), (1, 2))), flat), (Layout(("a", "b"), ((1, 2), (2,))), flat)]
    assert len({model_digest(*one) for one in [(layout, flat), *others]}) == 4
    assert model_digest(layout, np.array([0.0, 0, 0, 0], np.float32)) != model_digest(
        layout, np.array([-0.0, 0, 0, 0], np.float32)
    )

"""A model's fixed front: applied once it gives what the whole model gives, and training the head trains the model."""

from __future__ import annotations

import pytest
import torch

from common.models import front as fronts
from common.models.catalogue import build
from common.models.front import parted, seen_through
from common.parameters import flatten, layout_of

FRONTED = [("scatternet", (1, 8, 8), {}), ("logistic", (2, 3), {"norm": "layer"})]


@pytest.mark.parametrize(("name", "shape", "settings"), FRONTED)
def test_front_and_head_in_a_row_are_the_model(name, shape, settings, monkeypatch):
    model = build(name, inputs=shape, classes=3, **settings)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    front, head = parted(model)
    assert front is not None
    assert not list(front.parameters())
    x = torch.rand(7, *shape, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(head(seen_through(front, x)), model(x), atol=1e-5)
    monkeypatch.setattr(fronts, "AT_ONCE", 3)
    assert torch.allclose(head(seen_through(front, x)), model(x), atol=1e-5)
    assert head(seen_through(front, x[:0])).shape == (0, 3)


@pytest.mark.parametrize(("name", "shape", "settings"), FRONTED)
def test_the_head_holds_the_parameters_of_the_model_in_their_order(name, shape, settings):
    model = build(name, inputs=shape, classes=3, **settings)
    _, head = parted(model)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    assert (flatten(head) == flatten(model)).all()
    assert flatten(model).any()
    assert layout_of(head).shapes == layout_of(model).shapes


def test_a_model_without_a_front_is_all_head():
    model = build("mlp", inputs=(3,), classes=2)
    x = torch.rand(2, 3)
    assert parted(model) == (None, model)
    assert seen_through(None, x) is x

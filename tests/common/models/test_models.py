"""Architectures: what they map, that a seed names their weights, and what they refuse."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from common.errors import Code, Refusal
from common.models.catalogue import MODELS, build
from common.models.door import app
from common.parameters import flatten, layout_of
from common.privacy.clipping.validate import validate

SHAPES = {"logistic": (5,), "mlp": (5,), "cnn": (1, 8, 8), "tempered-cnn": (1, 14, 14), "scatternet": (1, 8, 8)}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("classes", "outputs"), [(2, 1), (3, 3)])
def test_each_model_maps_records_to_logits_and_may_be_clipped(name: str, classes: int, outputs: int) -> None:
    model = build(name, inputs=SHAPES[name], classes=classes)
    assert model(torch.randn(7, *SHAPES[name])).shape == (7, outputs)
    validate(model, SHAPES[name])


@pytest.mark.parametrize("name", ["mlp", "cnn", "tempered-cnn"])
def test_the_seed_alone_names_the_weights(name: str) -> None:
    """Must: server and site agree. Must not: read or move torch's own generator."""
    torch.manual_seed(1)
    first = flatten(build(name, inputs=SHAPES[name], classes=3, seed=4))
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert (flatten(build(name, inputs=SHAPES[name], classes=3, seed=4)) == first).all()
    assert (flatten(build(name, inputs=SHAPES[name], classes=3, seed=5)) != first).any()
    torch.manual_seed(1)
    build(name, inputs=SHAPES[name], classes=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_binary_logistic_regression_has_one_weight_a_feature_and_starts_at_zero() -> None:
    model = build("logistic", inputs=(11,), classes=2)
    assert layout_of(model).size == 12
    assert not flatten(model).any()


@pytest.mark.parametrize(
    ("name", "inputs", "settings"),
    [
        ("mlp", (6,), {"hidden": [8, 4], "activation": "gelu", "norm": "group"}),
        ("mlp", (6,), {"hidden": []}),
        ("cnn", (3, 9, 12), {"channels": [4], "norm": "layer", "hidden": 0, "activation": "relu"}),
        ("cnn", (1, 28, 28), {"kernel": 5, "norm": "group"}),
        ("tempered-cnn", (3, 20, 32), {}),
        ("scatternet", (3, 16, 24), {"scales": 1, "orientations": 4, "groups": 3}),
        ("scatternet", (1, 12, 12), {"groups": 0}),
        ("logistic", (6,), {"norm": "layer", "bias": False}),
    ],
)
def test_settings_shape_the_model(name: str, inputs: tuple[int, ...], settings: dict[str, Any]) -> None:
    model = build(name, inputs=inputs, classes=4, **settings)
    assert model(torch.randn(2, *inputs)).shape == (2, 4)
    validate(model, inputs)


@pytest.mark.parametrize(
    ("name", "inputs", "settings", "told"),
    [
        ("logistc", (3,), {}, "nearest is 'logistic'"),
        ("mlp", (3,), {"hiden": [3]}, "nearest is 'hidden'"),
        ("mlp", (3,), {"hidden": [0]}, "1 to 65536"),
        ("mlp", (3,), {"norm": "batch"}, "norm"),
        ("mlp", (3,), {"norm": "group", "hidden": [3]}, "hardly any signal"),
        ("mlp", (3,), {"hidden": "3"}, "hidden"),
        ("cnn", (64,), {}, "channels, height, width"),
        ("cnn", (1, 8, 8), {"channels": [4, 4, 4, 4]}, "16x16"),
        ("cnn", (1, 8, 8), {"kernel": 4}, "odd kernel"),
        ("tempered-cnn", (1, 13, 28), {}, "14x14"),
        ("scatternet", (784,), {}, "channels, height, width"),
        ("scatternet", (1, 28, 28), {"groups": 10}, "divisor"),
        ("scatternet", (1, 30, 28), {}, "multiples of 4"),
        ("logistic", (3,), {"norm": "group"}, "norm"),
        ("logistic", (0,), {}, "at least 1"),
    ],
)
def test_what_cannot_be_built_is_refused(
    name: str, inputs: tuple[int, ...], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(Refusal, match=told) as refused:
        build(name, inputs=inputs, classes=2, **settings)
    assert refused.value.code is Code.CONFIG_INVALID


def test_models_of_the_literature_have_the_sizes_that_it_tells() -> None:
    assert layout_of(build("tempered-cnn", inputs=(1, 28, 28), classes=10)).size == 26_010
    assert layout_of(build("scatternet", inputs=(1, 28, 28), classes=10)).size == (81 * 49 + 1) * 10


def test_a_record_scaled_or_brightened_is_the_same_record_to_a_normed_linear_model() -> None:
    model = build("logistic", inputs=(1, 4, 4), classes=3, norm="layer", seed=1)
    torch.nn.init.normal_(next(model.parameters()), generator=torch.Generator().manual_seed(1))
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(model(x), model(5 * x + 3), atol=1e-3)


def test_one_class_is_refused() -> None:
    with pytest.raises(Refusal, match="at least two"):
        build("logistic", inputs=(3,), classes=1)


def test_the_door_lists_every_model() -> None:
    result = CliRunner().invoke(app, ["list", "--json"])
    entries = json.loads(result.stdout.splitlines()[-1])["entries"]
    assert [entry["name"] for entry in entries] == list(MODELS)
    assert all({"name", "summary", "paper", "private"} <= entry.keys() for entry in entries)

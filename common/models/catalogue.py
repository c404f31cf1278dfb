"""The architectures by name, and the one way to build one."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from common.catalogue import Catalogue, Entry, NoSettings, catalogue, find
from common.errors import Code, Refusal
from common.models.convolutional import CnnSettings, cnn
from common.models.linear import LinearSettings, logistic
from common.models.mlp import MlpSettings, mlp
from common.models.scatternet import ScatterNetSettings, scatternet
from common.models.tempered import tempered_cnn
from common.randomness import child

MODELS: Catalogue[nn.Module] = catalogue(
    Entry(
        name="logistic",
        summary="one linear layer: logistic regression for two classes, softmax regression for more",
        paper="Cox 1958",
        settings=LinearSettings,
        make=logistic,
    ),
    Entry(
        name="mlp",
        summary="fully connected layers with an activation and an optional norm",
        paper="Rumelhart, Hinton and Williams 1986",
        settings=MlpSettings,
        make=mlp,
    ),
    Entry(
        name="cnn",
        summary="small convolutional network for images from 8x8 pixels on",
        paper="LeCun et al. 1998; tanh as in Papernot et al. 2021",
        settings=CnnSettings,
        make=cnn,
        input="image",
    ),
    Entry(
        name="tempered-cnn",
        summary="the small convolutional network with tanh that the literature on private training compares by",
        paper="Papernot et al. 2021",
        settings=NoSettings,
        make=tempered_cnn,
        input="image",
    ),
    Entry(
        name="scatternet",
        summary="one linear layer over fixed wavelet features of an image: learns well from little or under noise",
        paper="Bruna and Mallat 2013; Tramèr and Boneh 2021",
        settings=ScatterNetSettings,
        make=scatternet,
        input="image",
    ),
)


def outputs_of(classes: int) -> int:
    """Logits of a model for so many classes: one for two classes (half the parameters to clip), else one a class."""
    if classes < 2:
        raise Refusal(
            Code.CONFIG_INVALID, f"classes = {classes}", "a model needs at least two", "Correct the label of the data"
        )
    return 1 if classes == 2 else classes


def build(name: str, *, inputs: tuple[int, ...], classes: int, seed: int = 0, **settings: Any) -> nn.Module:
    """The model `name` for records of shape `inputs` and so many `classes`, with its initial weights.

    seed      the same seed gives the same weights at the server and at every site; torch's own seed is untouched
    settings  of the model; an unknown one is refused
    Result: maps float32 [n, *inputs] to logits [n, outputs_of(classes)].
    Errors: Refusal CONFIG_INVALID for an unknown name (naming the nearest) or a setting that does not fit.

    >>> build("logistic", inputs=(11,), classes=2)[1]
    Linear(in_features=11, out_features=1, bias=True)
    """
    entry = find(MODELS, name, "model")
    read = entry.read(settings)
    outputs = outputs_of(classes)
    if not inputs or any(isinstance(size, bool) or size < 1 for size in inputs):
        raise Refusal(
            Code.CONFIG_INVALID, f"inputs = {list(inputs)}", "each size must be at least 1", "Correct the shape"
        )
    before = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(child(seed, "initial weights", name).initial_seed())
        return entry.make(tuple(inputs), outputs, read)
    finally:
        torch.default_generator.set_state(before)

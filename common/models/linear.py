"""One linear layer: logistic regression for two classes, softmax regression for more."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from torch import nn

from common.models.front import Fronted


@dataclass(frozen=True, kw_only=True)
class LinearSettings:
    """bias: whether a constant is added, one more parameter for each output.

    norm  "layer" brings the inputs of each record to mean 0 and deviation 1 first, so that all records weigh alike
    """

    bias: bool = True
    norm: Literal["none", "layer"] = "none"


def logistic(inputs: tuple[int, ...], outputs: int, settings: LinearSettings) -> nn.Module:
    """Inputs of any shape [n, *inputs] to logits [n, outputs]; all weights start at zero, the problem is convex."""
    layer = nn.Linear(math.prod(inputs), outputs, bias=settings.bias)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    learned = nn.Sequential(OrderedDict(flat=nn.Flatten(), linear=layer))
    if settings.norm == "none":
        return learned
    return Fronted(nn.LayerNorm(inputs, elementwise_affine=False), learned)

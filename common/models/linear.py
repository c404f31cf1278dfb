"""One linear layer: logistic regression for two classes, softmax regression for more."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True, kw_only=True)
class LinearSettings:
    """bias: whether a constant is added, one more parameter for each output."""

    bias: bool = True


def logistic(inputs: tuple[int, ...], outputs: int, settings: LinearSettings) -> nn.Module:
    """Inputs of any shape [n, *inputs] to logits [n, outputs]; all weights start at zero, the problem is convex."""
    layer = nn.Linear(math.prod(inputs), outputs, bias=settings.bias)
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return nn.Sequential(OrderedDict(flat=nn.Flatten(), linear=layer))

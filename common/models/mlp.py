"""Fully connected layers with an activation and an optional norm between them."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from torch import nn

from common.errors import Code, Refusal
from common.models.blocks import Activation, Norm, activation, unit_norm


@dataclass(frozen=True, kw_only=True)
class MlpSettings:
    """hidden: units of each hidden layer.  norm: over the units of one record, "none", "layer" or "group"."""

    hidden: tuple[int, ...] = (32,)
    activation: Activation = "tanh"
    norm: Norm = "none"

    def __post_init__(self) -> None:
        if any(not 1 <= units <= 1 << 16 for units in self.hidden):
            raise Refusal(
                Code.CONFIG_INVALID,
                f"hidden = {list(self.hidden)}",
                "each layer needs 1 to 65536 units",
                "Correct the sizes",
            )


def mlp(inputs: tuple[int, ...], outputs: int, settings: MlpSettings) -> nn.Module:
    """Inputs of any shape [n, *inputs] to logits [n, outputs]."""
    widths = (math.prod(inputs), *settings.hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), unit_norm(settings.norm, after), activation(settings.activation)]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))

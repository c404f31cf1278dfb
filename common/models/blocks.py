"""Pieces that several architectures share: activations and norms that keep records apart."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from common.errors import Code, Refusal

Activation = Literal["relu", "tanh", "gelu", "silu", "sigmoid"]
Norm = Literal["none", "layer", "group"]

SMALLEST_GROUP = 4

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


def activation(name: Activation) -> nn.Module:
    """A new activation; never in place, because per-record gradients need its input."""
    return _ACTIVATIONS[name]()


def channel_norm(name: Norm, channels: int) -> nn.Module:
    """A norm over the channels and pixels of one image. Batch norm is no choice: it mixes the records of a batch."""
    if name == "none":
        return nn.Identity()
    # With a single group, GroupNorm is layer norm over channels and pixels.
    return nn.GroupNorm(1 if name == "layer" else math.gcd(8, channels), channels)


def unit_norm(name: Norm, units: int) -> nn.Module:
    """A norm over the units of one record, at least four of them a group.

    Errors: Refusal CONFIG_INVALID for a norm over fewer units: normalising one value leaves nothing of it.
    """
    if name == "none":
        return nn.Identity()
    if units < SMALLEST_GROUP:
        why = f"a norm over fewer than {SMALLEST_GROUP} leaves hardly any signal"
        raise Refusal(Code.CONFIG_INVALID, f"norm = {name!r} over {units} units", why, "Use more units or no norm")
    if name == "layer":
        return nn.LayerNorm(units)
    groups = max(count for count in (1, 2, 4, 8) if units % count == 0 and units // count >= SMALLEST_GROUP)
    return nn.GroupNorm(groups, units)

"""Per-record weight gradients of convolutions, each in the way that is fastest for the shape of its layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.privacy.clipping.contributions import Contribution, few, stacked
from common.privacy.clipping.patches import by_channels, by_places

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

FEW_CHANNELS = 4  # of one group: up to here patches are small, and one matrix product a record is faster
GROUPED_AT_ONCE = 1 << 19  # floats of inputs, outputs and weights of the records that are grouped at a time


def padded(layer: Convolution, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input as the convolution itself reads it, and the zeros that the convolution still pads by itself."""
    zeros = (0,) * (x.dim() - 2)
    if layer.padding_mode != "zeros":
        return functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), zeros  # noqa: SLF001  # what torch's own forward uses
    if isinstance(layer.padding, str):
        return functional.pad(x, layer._reversed_padding_repeated_twice), zeros  # noqa: SLF001  # as torch's own forward
    return x, layer.padding


def weight_gradients(layer: Convolution, x: Tensor, g: Tensor) -> Contribution:
    """Gradient of the weight for each record.

    x  inputs [m, c, ...]      g  gradient of the outputs [m, o, ...]
    """
    x, padding = padded(layer, x)
    if layer.in_channels // layer.groups <= FEW_CHANNELS or math.prod(layer.kernel_size) == 1:
        return by_places(layer, x, g, padding)
    if layer.groups == 1 and math.prod(g.shape[2:]) <= 2 * layer.out_channels:
        return by_channels(layer, x, g, padding)  # patches are hardly larger than the gradients that they make
    floats = x[:1].numel() + g[:1].numel() + layer.weight.numel()
    records = few(GROUPED_AT_ONCE, floats, x.device)
    return stacked(lambda some, out: _grouped(layer, some, out, padding), x, g, records)


def _grouped(layer: Convolution, x: Tensor, g: Tensor, padding: tuple[int, ...]) -> Tensor:
    """All records as the groups of one convolution, whose weight gradient then is each record's own.

    Source: Rochette, Manoel and Tramel 2019, section 3.
    """
    count = len(x)
    shape = (count * layer.out_channels, *layer.weight.shape[1:])
    gradient: Tensor = torch.ops.aten.convolution_backward(
        g.reshape(1, -1, *g.shape[2:]),
        x.reshape(1, -1, *x.shape[2:]),
        x.new_zeros(1).expand(shape),  # only its shape is used
        None,
        layer.stride,
        padding,
        layer.dilation,
        False,
        (0,) * len(padding),
        count * layer.groups,
        (False, True, False),
    )[1]
    return gradient.reshape(count, -1)

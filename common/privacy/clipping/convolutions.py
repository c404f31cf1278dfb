"""Per-record weight gradients of convolutions, without unfolding the image into patches where that costs more."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

FEW_CHANNELS = 4  # of one group: up to here patches are small, and one matrix product a record is faster
PATCHES_AT_ONCE = 1 << 18  # floats of patches made at a time: 1 MiB, which stays in the cache


def padded(layer: Convolution, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """The input as the convolution itself reads it, and the zeros that the convolution still pads by itself."""
    zeros = (0,) * (x.dim() - 2)
    if layer.padding_mode != "zeros":
        return functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), zeros  # noqa: SLF001  # what torch's own forward uses
    if isinstance(layer.padding, str):
        return functional.pad(x, layer._reversed_padding_repeated_twice), zeros  # noqa: SLF001
    return x, layer.padding


def weight_rows(layer: Convolution, x: Tensor, g: Tensor) -> Tensor:
    """Gradient of the weight for each record, [m, weights].

    x  inputs [m, c, ...]      g  gradient of the outputs [m, o, ...]
    """
    x, padding = padded(layer, x)
    if layer.in_channels // layer.groups <= FEW_CHANNELS:
        return _by_patches(layer, x, g, padding)
    return _grouped(layer, x, g, padding)


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


def _by_patches(layer: Convolution, x: Tensor, g: Tensor, padding: tuple[int, ...]) -> Tensor:
    """The input by places of the kernel, times the gradient of the outputs, for some records at a time."""
    if any(padding):
        x = functional.pad(x, list(itertools.chain.from_iterable((size, size) for size in reversed(padding))))
    view = _patches(layer, x.contiguous(), g.shape[2:])
    spots = math.prod(g.shape[2:])
    few = max(1, PATCHES_AT_ONCE // max(1, view[:1].numel()))
    parts = []
    for patches, out in zip(torch.split(view, few), torch.split(g, few), strict=True):
        of_groups = patches.reshape(len(out) * layer.groups, -1, spots).transpose(1, 2)
        parts.append(torch.bmm(out.reshape(len(out) * layer.groups, -1, spots), of_groups).reshape(len(out), -1))
    return torch.cat(parts)


def _patches(layer: Convolution, x: Tensor, spots: tuple[int, ...]) -> Tensor:
    """A view [m, c, places of the kernel, *spots] of the padded input: what each output spot looks at."""
    if max(layer.stride) > 1 and max(layer.dilation) == 1 and _fits(layer):
        return _phases(layer, x, spots)
    steps = x.stride()[2:]
    gaps = (step * gap for step, gap in zip(steps, layer.dilation, strict=True))
    jumps = (step * jump for step, jump in zip(steps, layer.stride, strict=True))
    return x.as_strided((*x.shape[:2], *layer.kernel_size, *spots), (*x.stride()[:2], *gaps, *jumps))


def _fits(layer: Convolution) -> bool:
    return all(kernel % jump == 0 for kernel, jump in zip(layer.kernel_size, layer.stride, strict=True))


def _phases(layer: Convolution, x: Tensor, spots: tuple[int, ...]) -> Tensor:
    """`_patches` for strides that divide the kernel, as a view in which neighbouring spots are neighbours in memory.

    The input is sorted by its places modulo the stride first: a copy as large as the input, not as the patches.
    """
    dims = len(spots)
    whole = [-(-size // jump) * jump for size, jump in zip(x.shape[2:], layer.stride, strict=True)]
    rest = [each - size for each, size in zip(whole, x.shape[2:], strict=True)]
    x = functional.pad(x, list(itertools.chain.from_iterable((0, more) for more in reversed(rest))))
    cut = [part for size, jump in zip(whole, layer.stride, strict=True) for part in (size // jump, jump)]
    sorted_ = (
        x.view(*x.shape[:2], *cut).permute(0, 1, *range(3, 2 + 2 * dims, 2), *range(2, 2 + 2 * dims, 2)).contiguous()
    )
    strides = sorted_.stride()
    phase, place = strides[2 : 2 + dims], strides[2 + dims :]
    kernel = [part for k, jump in zip(layer.kernel_size, layer.stride, strict=True) for part in (k // jump, jump)]
    along = [step for pair in zip(place, phase, strict=True) for step in pair]
    return sorted_.as_strided((*x.shape[:2], *kernel, *spots), (*strides[:2], *along, *place))

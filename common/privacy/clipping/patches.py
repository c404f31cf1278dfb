"""Per-record weight gradients of convolutions by patches: what each output looks at, times that output's gradient."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.privacy.clipping.contributions import Contribution, Turned, few, stacked

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d

AT_ONCE = 1 << 18  # floats of patches made at a time: 1 MiB, which stays in the cache


def by_places(layer: Convolution, x: Tensor, g: Tensor, padding: tuple[int, ...]) -> Contribution:
    """Patches of which the same place of all is neighbours in memory: for few channels, or a kernel of one place.

    x  inputs [m, c, ...]      g  gradient of the outputs [m, o, ...]      padding  zeros around x
    """
    groups, spots = layer.groups, math.prod(g.shape[2:])

    def products(patches: Tensor, out: Tensor) -> Tensor:
        of_groups = patches.reshape(len(out) * groups, -1, spots)
        return torch.bmm(of_groups, out.reshape(len(out) * groups, -1, spots).transpose(1, 2))

    view = _patches(layer, _surrounded(x, padding).contiguous(), g.shape[2:])
    shape = (groups, layer.weight[0].numel(), layer.out_channels // groups)
    blocks = stacked(products, view, g, few(AT_ONCE, view[:1].numel(), x.device))
    return Turned(blocks, shape, (0, 2, 1))


def by_channels(layer: Convolution, x: Tensor, g: Tensor, padding: tuple[int, ...]) -> Contribution:
    """Patches of which the channels of a place are neighbours in memory, as those of a whole row of the kernel are.

    x  inputs [m, c, ...]      g  gradient of the outputs [m, o, ...]      padding  zeros around x
    For convolutions of a single group.
    """
    spots = math.prod(g.shape[2:])

    def products(patches: Tensor, out: Tensor) -> Tensor:
        return torch.bmm(out.flatten(2), patches.reshape(len(out), spots, -1))

    last = _surrounded(x, padding).movedim(1, -1).contiguous()
    first, *steps, along = last.stride()
    gaps = (step * gap for step, gap in zip(steps, layer.dilation, strict=True))
    jumps = (step * jump for step, jump in zip(steps, layer.stride, strict=True))
    size = (len(x), *g.shape[2:], *layer.kernel_size, layer.in_channels)
    view = last.as_strided(size, (first, *jumps, *gaps, along))
    blocks = stacked(products, view, g, few(AT_ONCE, view[:1].numel(), x.device))
    shape = (layer.out_channels, *layer.kernel_size, layer.in_channels)
    return Turned(blocks, shape, (0, len(shape) - 1, *range(1, len(shape) - 1)))


def _surrounded(x: Tensor, padding: tuple[int, ...]) -> Tensor:
    """`x` with zeros around it."""
    if not any(padding):
        return x
    return functional.pad(x, list(itertools.chain.from_iterable((size, size) for size in reversed(padding))))


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

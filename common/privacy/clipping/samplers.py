"""Opacus' hooks with faster per-record gradients of our own for the layers where its own cost most."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import Tensor, nn

from common.privacy.clipping.convolutions import Convolution, weight_gradients

Samples = dict[Tensor, Tensor]  # a parameter's gradients, [m, *shape]


def convolution(layer: Convolution, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Grouped convolution instead of unfolded patches: for 16 channels of 32x32 pixels about 15 times faster."""
    found: Samples = {}
    if layer.weight.requires_grad:
        rows = weight_gradients(layer, activations[0], backprops.contiguous()).dense()
        found[layer.weight] = rows.view(len(rows), *layer.weight.shape)
    if layer.bias is not None and layer.bias.requires_grad:
        found[layer.bias] = backprops.flatten(2).sum(2)
    return found


def group_norm(layer: nn.GroupNorm, activations: list[Tensor], backprops: Tensor) -> Samples:
    """One fused pass, all records as groups of one."""
    x = activations[0].contiguous()
    count, channels = x.shape[:2]
    width = x[0, 0].numel()
    ops = torch.ops.aten
    _, mean, scale = ops.native_group_norm(x, None, None, count, channels, width, layer.num_groups, layer.eps)
    flat = (1, count * channels, width)
    _, on_weight, on_bias = ops.native_group_norm_backward(
        backprops.reshape(flat), x.view(flat), mean.view(1, -1), scale.view(1, -1),
        layer.weight.detach().repeat(count), *flat, count * layer.num_groups, (False, True, True),
    )  # fmt: skip
    rows = {layer.weight: on_weight, layer.bias: on_bias}
    return {parameter: part.view(count, channels) for parameter, part in rows.items() if parameter.requires_grad}


class FasterHooks(GradSampleHooks):  # type: ignore[misc]  # Opacus has no types
    """The hooks of Opacus with these samplers. Opacus' own table, which is one for the process, stays as it is."""

    GRAD_SAMPLERS: ClassVar[dict[type[nn.Module], Any]] = {
        **GradSampleHooks.GRAD_SAMPLERS,
        nn.Conv1d: convolution,
        nn.Conv2d: convolution,
        nn.Conv3d: convolution,
        nn.GroupNorm: group_norm,
    }

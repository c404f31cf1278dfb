"""Slopes of losses and of activations, written out where autograd would cost more than they do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.learning.losses import PerRecord, cross_entropy

_aten = torch.ops.aten


class Form(NamedTuple):
    """An activation and its slope.

    value  x -> y; may use the memory of x where `of` is "y"
    slope  slope of y, and x or y as `of` says -> slope of x
    """

    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor, Tensor], Tensor]
    of: str


FORMS: Mapping[type[nn.Module], Form] = {
    nn.ReLU: Form(torch.relu_, lambda slope, y: _aten.threshold_backward(slope, y, 0), "y"),
    nn.Tanh: Form(torch.tanh_, _aten.tanh_backward, "y"),
    nn.Sigmoid: Form(torch.sigmoid_, _aten.sigmoid_backward, "y"),
    nn.SiLU: Form(nn.functional.silu, _aten.silu_backward, "x"),
    nn.GELU: Form(nn.functional.gelu, _aten.gelu_backward, "x"),
}


def slopes_of(losses: PerRecord, logits: Tensor, labels: Tensor) -> Tensor:
    """Slope of each record's loss by its logits, [m, k], from logits [m, k] and labels int64 [m]."""
    if losses is not cross_entropy:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            return torch.autograd.grad(losses(leaf, labels).sum(), leaf)[0]
    if logits.shape[1] == 1:
        return torch.sigmoid(logits).sub_(labels[:, None])
    found = torch.softmax(logits, 1)
    here = torch.arange(0, found.numel(), found.shape[1]).add_(labels)
    found.view(-1)[here] -= 1.0
    return found

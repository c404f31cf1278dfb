"""Layers that note each record's gradient while it flows back: same outputs and input gradients as torch's own."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from common.privacy.clipping.book import Book
from common.privacy.clipping.contributions import Contribution, Dense, Outer, Rows, Turned
from common.privacy.clipping.convolutions import Convolution, padded, weight_gradients

# Each rule takes the layer's parameters as arguments only so that torch follows gradients to it, and returns none for
# them: what a parameter gets is in the book. Shapes: x [m, ...], g as the outputs, m records.


class Place(NamedTuple):
    """A layer, and the book that it notes in."""

    layer: Any
    book: Book

    def checked(self, x: Tensor) -> Tensor:
        """See `Book.checked`."""
        return self.book.checked(self.layer, x)


class LinearRule(Function):
    """Outputs of a linear layer; a record with a single row has a gradient of rank one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, at: Place) -> Tensor:
        """x [m, ..., i] to [m, ..., o]."""
        ctx.save_for_backward(at.checked(x), weight)
        ctx.layer, ctx.book = at
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Notes weight and bias."""
        x, weight = ctx.saved_tensors
        layer, book = ctx.layer, ctx.book
        if g.dim() == 2:
            book.note(layer.weight, Outer(g, x.detach()))
            book.note_rows(layer.bias, g)
        else:
            left, right = g.reshape(len(g), -1, g.shape[-1]), x.reshape(len(x), -1, x.shape[-1])
            if layer.weight.requires_grad:
                book.note(layer.weight, _products(left, right))
            book.note_rows(layer.bias, left.sum(1))
        return (g @ weight if ctx.needs_input_grad[0] else None), None, None, None


class ConvolutionRule(Function):
    """Outputs of a convolution in one to three dimensions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, at: Place) -> Tensor:
        """x [m, c, ...] to [m, o, ...]."""
        ctx.save_for_backward(at.checked(x), weight)
        (ctx.layer, ctx.book), ctx.padding = at, _zeros(at.layer, x)
        return _convolved(at.layer, x, weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Notes weight and bias."""
        x, weight = ctx.saved_tensors
        layer, book = ctx.layer, ctx.book
        g = g.contiguous()
        if layer.weight.requires_grad:
            book.note(layer.weight, weight_gradients(layer, x, g))
        if layer.bias is not None:
            book.note_rows(layer.bias, g.flatten(2).sum(2))
        back = _flown_back(layer, x, weight, g, ctx.padding) if ctx.needs_input_grad[0] else None
        return back, None, None, None


class GroupNormRule(Function):
    """Outputs of group or instance norm. One pass gives each record's gradient: all records as groups of one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, at: Place) -> Tensor:
        """x [m, c, ...], the same shape back."""
        x = at.checked(x).contiguous()
        groups = getattr(at.layer, "num_groups", x.shape[1])
        sizes = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        made: list[Tensor] = list(torch.ops.aten.native_group_norm(x, weight, bias, *sizes, groups, at.layer.eps))
        out, mean, scale = made
        ctx.save_for_backward(x, weight, mean, scale)
        (ctx.layer, ctx.book), ctx.groups = at, groups
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Notes weight and bias."""
        x, weight, mean, scale = ctx.saved_tensors
        count, channels, width = x.shape[0], x.shape[1], math.prod(x.shape[2:])
        wants = (ctx.needs_input_grad[0], True, True)
        flat = (1, count * channels, width)
        back, on_weight, on_bias = torch.ops.aten.native_group_norm_backward(
            g.reshape(flat), x.view(flat), mean.view(1, -1), scale.view(1, -1),
            weight.repeat(count), *flat, count * ctx.groups, wants,
        )  # fmt: skip
        ctx.book.note_rows(ctx.layer.weight, on_weight.view(count, channels))
        ctx.book.note_rows(ctx.layer.bias, on_bias.view(count, channels))
        return (back.view_as(x) if wants[0] else None), None, None, None


class LayerNormRule(Function):
    """Outputs of layer norm over the last dimensions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, at: Place) -> Tensor:
        """x [m, ..., *normalized_shape], the same shape back."""
        shape = at.layer.normalized_shape
        x = at.checked(x).contiguous()
        made: list[Tensor] = list(torch.ops.aten.native_layer_norm(x, shape, weight, bias, at.layer.eps))
        out, mean, scale = made
        ctx.save_for_backward(x, weight, bias, mean, scale)
        ctx.layer, ctx.book = at
        return out

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Notes weight and bias."""
        x, weight, bias, mean, scale = ctx.saved_tensors
        layer = ctx.layer
        g = g.contiguous()
        rows = (len(x), -1, math.prod(layer.normalized_shape))
        on_weight = ((x - mean).mul_(scale).mul_(g)).view(rows).sum(1)
        ctx.book.note_rows(layer.weight, on_weight)
        if layer.bias is not None:
            ctx.book.note_rows(layer.bias, g.view(rows).sum(1))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        back = torch.ops.aten.native_layer_norm_backward(
            g, x, layer.normalized_shape, mean, scale, weight, bias, (True, False, False)
        )
        return back[0], None, None, None


class RmsNormRule(Function):
    """Outputs of RMS norm over the last dimensions. Source: Zhang and Sennrich 2019."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, _: None, at: Place) -> Tensor:
        """x [m, ..., *normalized_shape], the same shape back."""
        axes = tuple(range(-len(at.layer.normalized_shape), 0))
        eps = torch.finfo(x.dtype).eps if at.layer.eps is None else at.layer.eps
        unit = at.checked(x) * (scale := torch.rsqrt(x.square().mean(axes, keepdim=True) + eps))
        ctx.save_for_backward(unit, scale, weight)
        (ctx.layer, ctx.book), ctx.axes = at, axes
        return unit * weight

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Notes the weight."""
        unit, scale, weight = ctx.saved_tensors
        rows = (len(unit), -1, math.prod(ctx.layer.normalized_shape))
        ctx.book.note_rows(ctx.layer.weight, (g * unit).reshape(rows).sum(1))
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        inner = g * weight
        return scale * (inner - unit * (inner * unit).mean(ctx.axes, keepdim=True)), None, None, None


class EmbeddingRule(Function):
    """Rows of a table. Each record notes the rows that it touched, not the whole table."""

    @staticmethod
    def forward(ctx: Any, index: Tensor, weight: Tensor, _: None, at: Place) -> Tensor:
        """index int64 [m, ...] to [m, ..., width]."""
        ctx.save_for_backward(at.checked(index))
        ctx.layer, ctx.book = at
        return functional.embedding(index, weight, at.layer.padding_idx)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        """Notes the weight; nothing for the row of padding, which is not learned."""
        (index,) = ctx.saved_tensors
        layer, count = ctx.layer, len(index)
        record = torch.arange(count, device=g.device).repeat_interleave(index[:1].numel())
        touched, values = index.reshape(-1), g.reshape(-1, layer.embedding_dim)
        if layer.padding_idx is not None:
            learned = touched != layer.padding_idx
            record, touched, values = record[learned], touched[learned], values[learned]
        ctx.book.note(layer.weight, Rows.gathered(record, touched, values, (count, layer.num_embeddings)))
        return None, None, None, None


def _products(left: Tensor, right: Tensor) -> Contribution:
    """Gradient of a weight from [m, t, o] and [m, t, i], with the longer side along memory, which is faster."""
    if left.shape[2] > right.shape[2]:
        turned = torch.bmm(right.transpose(1, 2), left)
        return Turned(Dense(turned.flatten(1)), turned.shape[1:], (1, 0))
    return Dense(torch.bmm(left.transpose(1, 2), right).flatten(1))


def _zeros(layer: Convolution, x: Tensor) -> tuple[int, ...]:
    return (0,) * (x.dim() - 2) if layer.padding_mode != "zeros" or isinstance(layer.padding, str) else layer.padding


def _convolved(layer: Convolution, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    x, padding = padded(layer, x)
    rest = (0,) * len(padding)
    found: Tensor = torch.ops.aten.convolution(
        x, weight, bias, layer.stride, padding, layer.dilation, False, rest, layer.groups
    )
    return found


def _flown_back(layer: Convolution, x: Tensor, weight: Tensor, g: Tensor, padding: tuple[int, ...]) -> Tensor:
    """Gradient of the inputs, through the layer's own padding where that is more than zeros."""
    if padding == layer.padding:
        return _back(layer, x, weight, g, padding)
    with torch.enable_grad():
        outer = x.detach().requires_grad_()
        inner, _ = padded(layer, outer)
    return torch.autograd.grad(inner, outer, _back(layer, inner.detach(), weight, g, padding))[0]


def _back(layer: Convolution, x: Tensor, weight: Tensor, g: Tensor, padding: tuple[int, ...]) -> Tensor:
    found: Tensor = torch.ops.aten.convolution_backward(
        g, x, weight, None, layer.stride, padding, layer.dilation, False, (0,) * len(padding), layer.groups,
        (True, False, False),
    )[0]  # fmt: skip
    return found

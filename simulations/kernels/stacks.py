"""What a stack of linear layers is made of, and which form its first layer takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from simulations.kernels.factored import Factored
from simulations.kernels.kernel import Step
from simulations.kernels.layers import Activation, Layer, Linear, Norm
from simulations.kernels.slopes import FORMS

FLOATS_AT_ONCE = 1 << 23  # of a bunch: 32 MiB, beyond which larger products gain nothing
MOST_SITES = 256
RECORDS_A_WIDTH = 8  # times its records a site must have inputs for the factored form to pay: measured, for 11 to 784


class Stack(NamedTuple):
    """The layers of a model: a linear one first, then linear ones, activations and norms."""

    first: nn.Linear
    rest: tuple[nn.Module, ...]


class Opened(NamedTuple):
    """A stack with the parameters of a round; its first layer in both forms."""

    factored: Factored
    dense: Linear
    rest: tuple[Layer, ...]


def stack_of(model: nn.Module) -> Stack | str:
    """The layers of `model`, or why it is no stack."""
    leaves = list(_leaves(model))
    modules = [leaf for leaf in leaves[1:] if type(leaf) is not nn.Identity]
    if not leaves or type(leaves[0]) is not nn.Flatten or leaves[0].start_dim != 1 or leaves[0].end_dim != -1:
        return "it does not begin with a flattening of records"
    for module in modules:
        if type(module) not in (nn.Linear, nn.LayerNorm, nn.GroupNorm, *FORMS):
            return f"no rule for the layer {type(module).__name__}"
        if type(module) is nn.LayerNorm and len(module.normalized_shape) != 1:
            return "a norm over more than the units"
        if type(module) is nn.GELU and module.approximate != "none":
            return "an approximate activation"
    if not modules or not isinstance(modules[0], nn.Linear):
        return "its first layer is not linear"
    if any(not parameter.requires_grad for parameter in model.parameters()):
        return "some of its parameters are frozen"
    if len(set(map(id, modules))) < len(modules):
        return "it takes a layer twice"
    return Stack(modules[0], tuple(modules[1:]))


def opened(stack: Stack, parameters: Tensor, step: Step) -> Opened:
    """The layers of `stack` beginning from `parameters`, float32 [d]."""
    places = iter(torch.split(parameters, [p.numel() for module in (stack.first, *stack.rest) for p in _own(module)]))

    def parts(module: nn.Module) -> tuple[Tensor | None, Tensor | None]:
        weight, bias = (
            None if getattr(module, name) is None else next(places).view_as(getattr(module, name))
            for name in ("weight", "bias")
        )
        return weight, bias

    def layer(module: nn.Module) -> Layer:
        if isinstance(module, nn.Linear):
            return Linear(*_linear(parts(module)), step, first=False)
        if isinstance(module, nn.LayerNorm):
            return Norm(1, module.eps, *parts(module), step)
        if isinstance(module, nn.GroupNorm):
            return Norm(module.num_groups, module.eps, *parts(module), step)
        return Activation(type(module))

    weight, bias = _linear(parts(stack.first))
    dense = Linear(weight, bias, step, first=True)
    return Opened(Factored(weight, bias, step), dense, tuple(layer(module) for module in stack.rest))


def sites_at_once(stack: Stack, records: int, batch: int) -> int:
    """Sites of a bunch that fits the cache, for so many `records` of each and the largest `batch` of a step."""
    units = [module.out_features for module in (stack.first, *stack.rest) if isinstance(module, nn.Linear)]
    inner = sum(module.weight.numel() for module in stack.rest if isinstance(module, nn.Linear))
    passes = min(batch, records) * 3 * sum(units)
    if pays(stack, records):
        first = records * (stack.first.in_features + records + 2 * stack.first.out_features)
    else:
        first = stack.first.weight.numel() + (records + batch) * stack.first.in_features
    return max(1, min(MOST_SITES, FLOATS_AT_ONCE // (first + inner + passes)))


def pays(stack: Stack, records: int) -> bool:
    """Whether the factored form of the first layer is the faster one for sites with so many records."""
    return records * RECORDS_A_WIDTH <= stack.first.in_features


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """Layers in the order in which they are applied."""
    if type(module) is not nn.Sequential:
        yield module
        return
    for child in module:
        yield from _leaves(child)


def _linear(parts: tuple[Tensor | None, Tensor | None]) -> tuple[Tensor, Tensor | None]:
    weight, bias = parts
    if weight is None:
        raise TypeError("a linear layer has weights")
    return weight, bias

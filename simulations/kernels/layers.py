"""Layers of many sites side by side: each site's own parameters, stacked, with their slopes written out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from simulations.kernels.bunches import Bunch
from simulations.kernels.kernel import Step
from simulations.kernels.slopes import FORMS


class Layer(Protocol):
    """One layer of the sites of a bunch, [sites, batch, units]; remembers its last input until it has learned."""

    def open(self, bunch: Bunch) -> None:
        """Begin anew from the round's parameters, for the sites of `bunch`."""

    def forward(self, x: Tensor) -> Tensor:
        """What the layer makes of [sites, batch, before]: [sites, batch, after]. May write over `x`."""

    def backward(self, slope: Tensor) -> Tensor:
        """The slope of the input from that of the output; then every site's parameters take their step."""

    def squares(self) -> Tensor:
        """Squared L2 norm of each site's change, float64 [sites]."""

    def summed(self, factors: Tensor) -> list[Tensor]:
        """For each parameter the sum over sites of factor * change, in the parameter's shape; factors float32."""

    def rows(self) -> list[Tensor]:
        """For each parameter the changes [sites, ...]."""


class Linear:
    """`Layer` that holds the weights of each site: pays where batches are not small beside them."""

    def __init__(self, weight: Tensor, bias: Tensor | None, step: Step, *, first: bool):
        self._weight = weight.t().contiguous()  # [before, after]
        self._bias = torch.zeros(len(weight)) if bias is None else bias
        self._biased, self._step, self._first = bias is not None, step, first

    def open(self, bunch: Bunch) -> None:
        self.weight = self._weight.expand(bunch.sites, -1, -1).clone()
        self.bias = self._bias.expand(bunch.sites, 1, -1).clone()

    def forward(self, x: Tensor) -> Tensor:
        self._x = x
        return torch.baddbmm(self.bias, x, self.weight)

    def backward(self, slope: Tensor) -> Tensor:
        found = slope if self._first else torch.bmm(slope, self.weight.transpose(1, 2))
        _pull(self.weight, self._weight, self._step)
        self.weight.baddbmm_(self._x.transpose(1, 2), slope, alpha=-self._step.rate)
        if self._biased:
            _take(self.bias, self._bias, slope, self._step)
        return found

    def squares(self) -> Tensor:
        return sum((_squares(change) for change in self._changes()), start=torch.zeros(()))

    def summed(self, factors: Tensor) -> list[Tensor]:
        weight, *bias = (torch.mv(change.flatten(1).t(), factors) for change in self._changes())
        return [weight.view_as(self._weight).t(), *bias]

    def rows(self) -> list[Tensor]:
        weight, *bias = self._changes()
        return [weight.transpose(1, 2), *bias]

    def _changes(self) -> list[Tensor]:
        return [self.weight - self._weight, *([self.bias - self._bias] if self._biased else [])]


class Norm:
    """`Layer` that brings groups of units of each record to mean 0 and deviation 1, then scales and shifts them."""

    def __init__(self, groups: int, epsilon: float, scale: Tensor | None, shift: Tensor | None, step: Step):
        self._groups, self._epsilon, self._step = groups, epsilon, step
        self._starts = [scale, shift]

    def open(self, bunch: Bunch) -> None:
        self._parts = [None if start is None else start.expand(bunch.sites, 1, -1).clone() for start in self._starts]

    def forward(self, x: Tensor) -> Tensor:
        self._x = x.reshape(-1, x.shape[-1] // self._groups)
        shape = [self._x.shape[-1]]
        even, *self._moments = torch.native_layer_norm(self._x, shape, None, None, self._epsilon)
        self._even = even.view_as(x)
        scale, shift = self._parts
        scaled = self._even if scale is None else self._even * scale
        return scaled.clone() if shift is None else scaled + shift

    def backward(self, slope: Tensor) -> Tensor:
        scale, shift = self._parts
        inner = slope if scale is None else slope * scale
        if scale is not None:
            _take(scale, self._starts[0], slope * self._even, self._step)
        if shift is not None:
            _take(shift, self._starts[1], slope, self._step)
        shape = [self._x.shape[-1]]
        flat = inner.reshape(self._x.shape)
        found: Tensor = torch.ops.aten.native_layer_norm_backward(
            flat, self._x, shape, *self._moments, None, None, [True, False, False]
        )[0]
        return found.view_as(slope)

    def squares(self) -> Tensor:
        return sum((_squares(change) for change in self.rows()), start=torch.zeros(()))

    def summed(self, factors: Tensor) -> list[Tensor]:
        return [torch.mv(change[:, 0].t(), factors) for change in self.rows()]

    def rows(self) -> list[Tensor]:
        pairs = zip(self._parts, self._starts, strict=True)
        return [now - start for now, start in pairs if now is not None and start is not None]


class Activation:
    """`Layer` without parameters."""

    def __init__(self, kind: type[nn.Module]):
        self._form = FORMS[kind]

    def open(self, bunch: Bunch) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        y = self._form.value(x)
        self._kept = y if self._form.of == "y" else x
        return y

    def backward(self, slope: Tensor) -> Tensor:
        found: Tensor = self._form.slope(slope, self._kept)
        return found

    def squares(self) -> Tensor:
        return torch.zeros(())

    def summed(self, factors: Tensor) -> list[Tensor]:
        return []

    def rows(self) -> list[Tensor]:
        return []


def _take(now: Tensor, start: Tensor | None, slope: Tensor, step: Step) -> None:
    """One step of parameters [sites, 1, units] by slopes [sites, batch, units]."""
    _pull(now, start, step)
    now.add_(slope.sum(1, keepdim=True), alpha=-step.rate)


def _pull(now: Tensor, start: Tensor | None, step: Step) -> None:
    if step.pull and start is not None:
        now.lerp_(start, step.pull)


def _squares(change: Tensor) -> Tensor:
    """Squared norm of each site's part, float64 [sites]."""
    found: Tensor = torch.linalg.vector_norm(change.flatten(1), dim=1).double().square()
    return found

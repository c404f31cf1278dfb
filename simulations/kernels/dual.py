"""All sites of a round side by side, for linear models and layers after layers of them under plain gradient steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from common.parameters import Flat, checked
from simulations.kernels.bunches import Bunch, bunches
from simulations.kernels.convolution import CONVOLUTION, Convolution
from simulations.kernels.kernel import Course, Kind, Lesson, Step, Total
from simulations.kernels.layers import Layer
from simulations.kernels.singly import refuse_clip
from simulations.kernels.slopes import slopes_of
from simulations.kernels.stacks import opened, pays, sites_at_once, stack_of


class Taught(NamedTuple):
    """A bunch after its lessons, with the layers that hold what its sites learned."""

    bunch: Bunch
    layers: tuple[Layer, ...]


class Dual:
    """`Kernel` for stacks of linear layers, activations and norms.

    A site whose result is not finite is taught again by itself, so that what has diverged is what has in the loop.
    """

    name = "dual"

    def __init__(self, course: Course):
        stack = stack_of(course.model)
        if isinstance(stack, str):
            raise TypeError(stack)
        self._stack, self._course, self._alone = stack, course, Convolution(course)

    def updates(self, parameters: Flat, lessons: Iterable[Lesson]) -> NDArray[np.float32]:
        """See `Kernel.updates`."""
        count = _Count()
        pieces = []
        for taught in self._taught(parameters, count.places(lessons)):
            rows = _rows(taught.layers)
            for bad in np.flatnonzero(~np.isfinite(rows).all(1)).tolist():
                rows[bad] = self._alone.updates(parameters, [taught.bunch.placed[bad].lesson])[0]
            pieces.append((taught.bunch.places, rows))
        found = np.zeros((count.seen, self._course.size), np.float32)
        for places, rows in pieces:
            found[places] = rows
        return found

    def total(self, parameters: Flat, lessons: Iterable[Lesson], clip: float | None) -> Total:
        """See `Kernel.total`."""
        refuse_clip(clip)
        count, norms = _Count(), dict[int, float]()
        whole = np.zeros(self._course.size, np.float64)
        for taught in self._taught(parameters, count.places(lessons)):
            part = _total(taught, clip)
            if part is None:
                part = self._alone.total(parameters, [each.lesson for each in taught.bunch.placed], clip)
            whole += part.sum
            found = np.where(part.usable, 0.0, np.inf) if part.norms is None else part.norms
            norms.update(zip(taught.bunch.places, found.tolist(), strict=True))
        every = np.array([norms.get(place, 0.0) for place in range(count.seen)], np.float64)
        return Total(whole, np.isfinite(every), None if clip is None else every)

    def _taught(self, parameters: Flat, lessons: Iterator[tuple[int, Lesson]]) -> Iterator[Taught]:
        """All bunches of `lessons`, each to be read before the next."""
        start = torch.from_numpy(checked(parameters, self._course.size))
        layers = opened(self._stack, start, Step.of(self._course.plan))
        batch = self._course.plan.batch
        for bunch in bunches(lessons, lambda records: sites_at_once(self._stack, records, batch)):
            factored = pays(self._stack, bunch.records)
            chain = (layers.factored if factored else layers.dense, *layers.rest)
            with torch.no_grad():
                self._teach(bunch, chain, by_row=factored)
            yield Taught(bunch, chain)

    def _teach(self, bunch: Bunch, layers: tuple[Layer, ...], *, by_row: bool) -> None:
        """Every step of the bunch. by_row  the first layer knows the records by their rows."""
        for layer in layers:
            layer.open(bunch)
        for rows, shares in zip(bunch.rows, bunch.shares, strict=True):
            x = rows if by_row else bunch.inputs.index_select(0, rows).view(bunch.sites, bunch.batch, -1)
            for layer in layers:
                x = layer.forward(x)
            slope = slopes_of(self._course.task.losses, x.flatten(0, 1), bunch.labels.index_select(0, rows))
            slope = slope.view_as(x).mul_(shares)
            for layer in reversed(layers):
                slope = layer.backward(slope)


class _Count:
    """Numbers lessons as they pass."""

    def __init__(self) -> None:
        self.seen = 0

    def places(self, lessons: Iterable[Lesson]) -> Iterator[tuple[int, Lesson]]:
        for lesson in lessons:
            self.seen += 1
            yield self.seen - 1, lesson


@torch.no_grad()
def _rows(layers: tuple[Layer, ...]) -> NDArray[np.float32]:
    """Changes of all parameters, [sites, d]."""
    found: NDArray[np.float32] = torch.cat([part.flatten(1) for layer in layers for part in layer.rows()], 1).numpy()
    return found


@torch.no_grad()
def _total(taught: Taught, clip: float | None) -> Total | None:
    """The sum over the sites of a bunch; None where not all is finite."""
    bunch, layers = taught
    factors, norms = bunch.weights, None
    if clip is not None:
        found = sum((layer.squares() for layer in layers), start=torch.zeros(bunch.sites, dtype=torch.float64)).sqrt()
        if not torch.isfinite(found).all():
            return None
        factors = factors * (clip / found.clamp_min(clip))
        norms = found.numpy()
    parts = [part.reshape(-1) for layer in layers for part in layer.summed(factors.to(torch.float32))]
    whole = torch.cat(parts)
    if not torch.isfinite(whole).all():
        return None
    return Total(whole.double().numpy(), np.ones(bunch.sites, np.bool_), norms)


def _unfit(course: Course) -> str | None:
    stack = stack_of(course.model)
    return stack if isinstance(stack, str) else CONVOLUTION.unfit(course)


DUAL = Kind("dual", _unfit, Dual)

"""One site after another with bare gradient steps: channels side by side in memory, as processors convolve fastest."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.parameters import Flat, checked
from simulations.kernels.kernel import Course, Kind, Lesson, Step, Total, plain_steps, refuse_outside
from simulations.kernels.loop import Loop
from simulations.kernels.singly import rows_of, total_of

_NONE = np.zeros(0, np.int64)
IMAGES = 4  # dimensions of a tensor of images or of filters


class Convolution:
    """`Kernel` for any model under plain gradient descent; made for convolutions.

    All parameters lie in one array, filters with their channels last, so that one copy begins a site and one
    subtraction ends it. No optimizer object is made. A site whose result is not finite is taught again by the loop,
    which alone says what has diverged: layouts of memory differ in what overflows.
    """

    name = "convolution"

    def __init__(self, course: Course):
        self._course = course
        self._model = pooled_first(deepcopy(course.model)).train()
        self._losses, self._step = course.task.losses, Step.of(course.plan)
        self._parameters = [p for p in self._model.parameters() if p.requires_grad]
        self._places = torch.cat([_channels_last(part) for part in _numbered(self._parameters)])
        self._flat = torch.zeros(self._places.numel())
        self._change = torch.zeros_like(self._flat)
        self._views = []
        for parameter, part in zip(self._parameters, _parts(self._flat, self._parameters), strict=True):
            parameter.data = _as_filters(part, parameter.shape)
            self._views.append(parameter.data)

    def updates(self, parameters: Flat, lessons: Iterable[Lesson]) -> NDArray[np.float32]:
        """See `Kernel.updates`."""
        found = rows_of((change for change, _ in self._each(parameters, lessons)), self._flat.numel())
        return found[:, torch.argsort(self._places).numpy()]

    def total(self, parameters: Flat, lessons: Iterable[Lesson], clip: float | None) -> Total:
        """See `Kernel.total`."""
        found = total_of(self._each(parameters, lessons), self._flat.numel(), clip)
        return Total(found.sum[torch.argsort(self._places).numpy()], found.usable, found.norms)

    def _each(self, parameters: Flat, lessons: Iterable[Lesson]) -> Iterator[tuple[torch.Tensor, float]]:
        """Each site's update in the order of `_flat`, good until the next is asked for, and its weight."""
        start = torch.from_numpy(checked(parameters, self._flat.numel()))[self._places]
        for lesson in lessons:
            refuse_outside(np.concatenate([_NONE, *lesson.batches]), len(lesson.inputs))
            self._flat.copy_(start)
            self._take(lesson, start)
            torch.sub(self._flat, start, out=self._change)
            if not torch.isfinite(self._change.sum()):
                again = Loop(self._course).updates(parameters, [lesson])[0]
                self._change.copy_(torch.from_numpy(again)[self._places])
            yield self._change, lesson.weight

    @torch.enable_grad()
    def _take(self, lesson: Lesson, start: torch.Tensor) -> None:
        """The steps of one site from `start`."""
        for taken in lesson.batches:
            rows = torch.from_numpy(taken)
            batch = lesson.inputs.index_select(0, rows)
            if batch.dim() == IMAGES:
                batch = batch.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            losses = self._losses(self._model(batch), lesson.labels.index_select(0, rows))
            share = torch.full_like(losses, 1.0 / len(rows))
            slopes: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
                losses, self._parameters, share, allow_unused=True
            )
            reached = [(view, slope) for view, slope in zip(self._views, slopes, strict=True) if slope is not None]
            if self._step.pull:
                self._flat.lerp_(start, self._step.pull)
            torch._foreach_add_(*map(list, zip(*reached, strict=True)), alpha=-self._step.rate)


def pooled_first(model: nn.Module) -> nn.Module:
    """`model` with maximum and ReLU in turn where they follow each other the other way round.

    The larger of two ReLUs is the ReLU of the larger, slopes included, and then there are fewer to compute.
    """
    if type(model) is not nn.Sequential:
        return model
    layers = list(model)
    for place, (this, following) in enumerate(itertools.pairwise(layers)):
        if type(this) is nn.ReLU and type(following) is nn.MaxPool2d and not following.return_indices:
            layers[place], layers[place + 1] = following, this
    return nn.Sequential(*layers)


def _numbered(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    """The places of each parameter in the flat array of `common.parameters`, in its shape."""
    places = torch.arange(sum(p.numel() for p in parameters))
    return [part.view(p.shape) for part, p in zip(_parts(places, parameters), parameters, strict=True)]


def _parts(flat: torch.Tensor, parameters: list[nn.Parameter]) -> tuple[torch.Tensor, ...]:
    return torch.split(flat, [p.numel() for p in parameters])


def _channels_last(part: torch.Tensor) -> torch.Tensor:
    """Flat, filters with their channels last."""
    return part.permute(0, 2, 3, 1).reshape(-1) if part.dim() == IMAGES else part.reshape(-1)


def _as_filters(part: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A view of `part` that undoes `_channels_last`."""
    if len(shape) != IMAGES:
        return part.view(shape)
    after, before, high, wide = shape
    return part.view(after, high, wide, before).permute(0, 3, 1, 2)


def _unfit(course: Course) -> str | None:
    if next(course.model.buffers(), None) is not None:
        return "the model keeps more than its parameters, which would pass from site to site"
    if any(isinstance(module, nn.modules.dropout._DropoutNd) for module in course.model.modules()):  # noqa: SLF001
        return "units are dropped at random"
    return plain_steps(course)


CONVOLUTION = Kind("convolution", _unfit, Convolution)

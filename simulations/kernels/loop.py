"""The local loop of a site itself, one site after another: right for every course, and the yardstick of the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy

import numpy as np
import torch
from numpy.typing import NDArray

from client.trainer import Workbench, train_on
from common.parameters import Flat
from common.privacy.clipping.reference_engine import ReferenceEngine
from simulations.kernels.kernel import Course, Kind, Lesson, Total, refuse_outside
from simulations.kernels.singly import rows_of, total_of

_NONE = np.zeros(0, np.int64)


class Loop:
    """`Kernel` that calls the site's own `train_on`."""

    name = "loop"

    def __init__(self, course: Course):
        device = next((p.device for p in course.model.parameters()), torch.device("cpu"))
        self._bench = Workbench(deepcopy(course.model), course.task, course.plan, device, ReferenceEngine())
        self._size = course.size

    def updates(self, parameters: Flat, lessons: Iterable[Lesson]) -> NDArray[np.float32]:
        """See `Kernel.updates`."""
        return rows_of((update for update, _ in self._each(parameters, lessons)), self._size)

    def total(self, parameters: Flat, lessons: Iterable[Lesson], clip: float | None) -> Total:
        """See `Kernel.total`."""
        return total_of(self._each(parameters, lessons), self._size, clip)

    def _each(self, parameters: Flat, lessons: Iterable[Lesson]) -> Iterator[tuple[torch.Tensor, float]]:
        """Each site's update, float64 [d], and its weight."""
        for lesson in lessons:
            refuse_outside(np.concatenate([_NONE, *lesson.batches]), len(lesson.inputs))
            self._bench.load(parameters)
            inputs, labels = lesson.inputs.to(self._bench.device), lesson.labels.to(self._bench.device)
            yield torch.from_numpy(train_on(self._bench, inputs, labels, lesson.batches)), lesson.weight


LOOP = Kind("loop", lambda _: None, Loop)

"""Which kernel teaches a run: the fastest that is right, after it has been compared with the loop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.parameters import Flat
from simulations.kernels.convolution import CONVOLUTION
from simulations.kernels.dual import DUAL
from simulations.kernels.kernel import Course, Kernel, Kind, Lesson
from simulations.kernels.loop import LOOP, Loop

KINDS: Mapping[str, Kind] = {kind.name: kind for kind in (DUAL, CONVOLUTION, LOOP)}  # the fastest first
RELATIVE = 1e-5
SITES = 3  # that are compared at most


class PassedOver(NamedTuple):
    """A kernel that was not taken, and why."""

    name: str
    why: str


@dataclass(frozen=True)
class Choice:
    """The kernel of a run, and the faster ones that it is not. Printed as words."""

    kernel: Kernel
    passed_over: tuple[PassedOver, ...] = ()

    def __str__(self) -> str:
        reasons = "; ".join(f"not {name}: {why}" for name, why in self.passed_over)
        return f"{self.kernel.name} ({reasons})" if reasons else self.kernel.name


class _Compared(NamedTuple):
    """A site as the loop teaches it."""

    lesson: Lesson
    update: NDArray[np.float32]


def choose(course: Course, parameters: Flat, lessons: Iterable[Lesson]) -> Choice:
    """The fastest kernel that is right for `course` and gives the loop's update of the first site.

    parameters  of the first round
    lessons     of its first sites, of which no more are taken than are needed. Where the first is taught otherwise than
                by the loop, two more decide: rounding may fall on the other side of a kink, as of ReLU, in a single one
    Errors: Refusal UPDATE_INVALID for parameters that do not fit the model.
    """
    compared = _Ahead(_taught(course, parameters, lessons))
    passed_over: list[PassedOver] = []
    for kind in KINDS.values():
        if kind is LOOP:
            break
        why = kind.unfit(course)
        if why is None:
            kernel = kind.make(course)
            why = _wrong(kernel, parameters, compared)
            if why is None:
                return Choice(kernel, tuple(passed_over))
        passed_over.append(PassedOver(kind.name, why))
    return Choice(LOOP.make(course), tuple(passed_over))


def distance(found: NDArray[np.floating], right: NDArray[np.floating], parameters: Flat, steps: int) -> float:
    """How far the update `found` is from `right` in units of what is allowed: at most 1 where they agree.

    Allowed are 1e-5 of the update's norm, and the rounding that float32 parameters themselves take in so many steps.
    """
    size = float(np.linalg.norm(right.astype(np.float64)))
    rounding = 2.0**-23 * math.sqrt(steps) * float(np.linalg.norm(parameters.astype(np.float64)))
    away = float(np.linalg.norm(found.astype(np.float64) - right))
    allowed = RELATIVE * size + rounding
    return away / allowed if allowed else (math.inf if away else 0.0)


class _Ahead:
    """An iterator that can be begun again, and is asked for no more than was ever needed."""

    def __init__(self, source: Iterator[_Compared]):
        self._source, self._seen = source, list[_Compared]()

    def __iter__(self) -> Iterator[_Compared]:
        for place in itertools.count():
            while len(self._seen) <= place:
                following = next(self._source, None)
                if following is None:
                    return
                self._seen.append(following)
            yield self._seen[place]


def _taught(course: Course, parameters: Flat, lessons: Iterable[Lesson]) -> Iterator[_Compared]:
    """The first sites that tell something, as the loop teaches them."""
    loop = Loop(course)
    taught = (_Compared(lesson, loop.updates(parameters, [lesson])[0]) for lesson in itertools.islice(lessons, SITES))
    return (each for each in taught if np.isfinite(each.update).all() and each.update.any())


def _wrong(kernel: Kernel, parameters: Flat, sites: Iterable[_Compared]) -> str | None:
    """Why `kernel` is not right, or None."""
    found = []
    for site in sites:
        try:
            found.append(_apart(kernel, parameters, site))
        except RuntimeError as error:
            return f"it fails: {str(error).splitlines()[0]}"
        if found[0] <= 1.0:
            return None
    if not found:
        return "the first sites learn nothing, or diverge, so it cannot be compared with the loop"
    if len(found) == SITES and max(found[1:]) <= 1.0:
        return None
    return f"its update of the first site differs from the loop's by {found[0]:.3g} times what rounding explains"


def _apart(kernel: Kernel, parameters: Flat, site: _Compared) -> float:
    """The larger distance of the site's update and of its sum, clipped to half its norm."""
    steps, clip = len(site.lesson.batches), float(np.linalg.norm(site.update)) / 2
    update = kernel.updates(parameters, [site.lesson])[0]
    total = kernel.total(parameters, [site.lesson], clip).sum
    halved = site.update.astype(np.float64) * site.lesson.weight / 2
    weight = max(1.0, abs(site.lesson.weight))
    return max(
        distance(update, site.update, parameters, steps),
        distance(total, halved, parameters * np.float32(weight), steps),
    )

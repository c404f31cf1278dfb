"""Lessons of like size, brought together so that one computation teaches them all."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.learning.batches import Batches
from simulations.kernels.kernel import Lesson, refuse_outside

FLOATS_AHEAD = 1 << 24  # inputs of lessons that wait for others of their size: 64 MiB


@dataclass(frozen=True, repr=False, eq=False)
class Placed:
    """A lesson cut down to the records that its batches name, and its place in the round."""

    place: int
    lesson: Lesson
    inputs: Tensor  # float32 [n, width]
    labels: Tensor  # int64 [n]
    batches: Batches  # row numbers of `inputs`


@dataclass(frozen=True, repr=False, eq=False)
class Bunch:
    """`sites` lessons side by side, each with room for `records` records; then one record of zeros.

    inputs  float32 [sites * records + 1, width], zeros where a site has fewer
    labels  int64 [sites * records + 1]
    rows    int64 [steps, sites * batch], the record of zeros where a site's batch is smaller
    shares  float32 [steps, sites, batch, 1]: 1 / size of a site's batch, 0 for the record of zeros
    """

    placed: Sequence[Placed]
    inputs: Tensor
    labels: Tensor
    rows: Tensor
    shares: Tensor

    @property
    def sites(self) -> int:
        return len(self.placed)

    @property
    def records(self) -> int:
        return (len(self.inputs) - 1) // self.sites

    @property
    def batch(self) -> int:
        return int(self.shares.shape[2])

    @property
    def places(self) -> list[int]:
        """Of its lessons in the round."""
        return [each.place for each in self.placed]

    @property
    def weights(self) -> Tensor:
        """float64 [sites]."""
        return torch.tensor([each.lesson.weight for each in self.placed], dtype=torch.float64)


def bunches(lessons: Iterable[tuple[int, Lesson]], at_once: Callable[[int], int]) -> Iterator[Bunch]:
    """All lessons that have batches, with their places, in bunches of like size.

    at_once  records of a site -> sites of a bunch
    Errors: Refusal DATA_INVALID for a batch that names rows which its lesson has not.
    """
    placed = (_placed(place, lesson) for place, lesson in lessons if any(map(len, lesson.batches)))
    room = None
    for window in _windows(placed):
        window.sort(key=lambda each: len(each.inputs), reverse=True)
        while window:
            count = max(1, at_once(len(window[0].inputs)))
            bunch = window[:count]
            del window[:count]
            size = len(bunch) * len(bunch[0].inputs) + 1
            width = bunch[0].inputs.shape[1]
            if room is None or len(room) < size or room.shape[1] != width:
                room = torch.empty(size, width)
            yield _bunch(bunch, room[:size])


def _windows(placed: Iterator[Placed]) -> Iterator[list[Placed]]:
    """Lessons until they fill the memory that may wait."""
    while first := next(placed, None):
        window, floats = [first], first.inputs.numel()
        for each in placed:
            window.append(each)
            floats += each.inputs.numel()
            if floats >= FLOATS_AHEAD:
                break
        yield window


def _placed(place: int, lesson: Lesson) -> Placed:
    inputs, labels, batches = lesson.inputs.flatten(1), lesson.labels, lesson.batches
    if sum(map(len, batches)) < len(inputs):
        rows, renamed = np.unique(np.concatenate(batches), return_inverse=True)
        refuse_outside(rows, len(inputs))
        batches = tuple(np.split(renamed, np.cumsum([len(batch) for batch in batches])[:-1]))
        kept = torch.from_numpy(rows)
        inputs, labels = inputs[kept], labels[kept]
    return Placed(place, lesson, inputs, labels, batches)


def _bunch(placed: Sequence[Placed], room: Tensor) -> Bunch:
    """Lessons, longest first, in `room`."""
    sites, records = len(placed), len(placed[0].inputs)
    labels = torch.zeros(len(room), dtype=torch.int64)
    if len(placed[-1].inputs) == records:
        torch.cat([each.inputs for each in placed], out=room[:-1])
        torch.cat([each.labels for each in placed], out=labels[:-1])
    else:
        room.zero_()
        for start, each in zip(itertools.count(0, records), placed, strict=False):
            room[start : start + len(each.inputs)] = each.inputs
            labels[start : start + len(each.labels)] = each.labels
    room[-1] = 0.0
    rows, sizes = _rows(placed, records)
    shares = np.where(rows < sites * records, 1.0 / np.maximum(sizes, 1)[:, :, None], 0.0).astype(np.float32)
    steps, _, batch = rows.shape
    at = torch.from_numpy(rows.reshape(steps, sites * batch))
    return Bunch(placed, room, labels, at, torch.from_numpy(shares)[..., None])


def _rows(placed: Sequence[Placed], records: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the whole [steps, sites, batch], and sizes of batches [steps, sites]."""
    sites, steps = len(placed), max(len(each.batches) for each in placed)
    sizes = np.zeros((sites, steps), np.int64)
    for site, each in enumerate(placed):
        sizes[site, : len(each.batches)] = [len(batch) for batch in each.batches]
    named = np.concatenate([batch for each in placed for batch in each.batches])
    refuse_outside(named, np.repeat([len(each.inputs) for each in placed], sizes.sum(1)))
    rows = np.full((sites, steps, int(sizes.max())), sites * records, np.int64)
    rows[np.arange(rows.shape[2]) < sizes[..., None]] = named + np.repeat(np.arange(sites) * records, sizes.sum(1))
    return np.ascontiguousarray(rows.transpose(1, 0, 2)), sizes.T

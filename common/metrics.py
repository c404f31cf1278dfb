"""Measures as sums that merge: what two sites counted adds up to what one site with all records would count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import Code, Refusal


@dataclass(frozen=True)
class Mean:
    """A mean as total and weight; merging is addition."""

    total: float = 0.0
    weight: float = 0.0

    def __add__(self, other: Mean) -> Mean:
        return Mean(self.total + other.total, self.weight + other.weight)

    @property
    def value(self) -> float | None:
        """The mean, or None where nothing was weighed."""
        return ratio(self.total, self.weight)


@dataclass(frozen=True, kw_only=True)
class CountShape:
    """Size of a table of counts: groups x classes x bins.

    bins  two classes: an even number of equal bins of the positive score, so that 0.5 is an edge;
          more classes: the predicted class, so as many as classes
    """

    groups: int
    classes: int
    bins: int

    def __post_init__(self) -> None:
        fits = self.bins >= 2 and self.bins % 2 == 0 if self.classes == 2 else self.bins == self.classes
        if self.groups < 1 or self.classes < 2 or not fits:
            raise Refusal(
                Code.CONFIG_INVALID,
                f"Counts of {self.groups} x {self.classes} x {self.bins}",
                "two classes need an even number of bins, more classes one bin a class",
                "Correct the number of bins",
            )

    @property
    def lanes(self) -> int:
        """Integers that one site sends."""
        return self.groups * self.classes * self.bins

    def bin_of(self, scores: torch.Tensor) -> torch.Tensor:
        """The bin of each record from its class probabilities [n, classes]; int64 [n].

        Two classes: bin b holds scores in (b/bins, (b+1)/bins], so "above 0.5" is exactly the upper half.
        """
        if self.classes > 2:
            return scores.argmax(1)
        # float64: an even number of bins times a float32 is exact around 0.5
        return (torch.ceil(scores[:, 1].double() * self.bins) - 1).long().clamp(0, self.bins - 1)


@dataclass(frozen=True, eq=False)
class Counts:
    """H[group, label, bin]: how many records of a group and label got a score in a bin.

    One record is counted in exactly one cell, so one record more or less moves the vector by 1 in L1 and in L2.
    After noise was added, cells may be negative; a rate whose denominator is not positive is undefined, None.
    """

    shape: CountShape
    table: NDArray[np.int64]  # (groups, classes, bins)

    @staticmethod
    def zero(shape: CountShape) -> Counts:
        """Nothing counted yet; adds as zero."""
        return Counts(shape, np.zeros((shape.groups, shape.classes, shape.bins), np.int64))

    @staticmethod
    def of(shape: CountShape, scores: torch.Tensor, labels: torch.Tensor, groups: torch.Tensor) -> Counts:
        """Count records by their class probabilities [n, classes], labels [n] and group numbers [n]."""
        cell = (groups.long() * shape.classes + labels.long()) * shape.bins + shape.bin_of(scores)
        return Counts.from_lanes(shape, np.bincount(cell.cpu().numpy(), minlength=shape.lanes))

    @staticmethod
    def from_lanes(shape: CountShape, lanes: NDArray[np.integer]) -> Counts:
        """The counts that `to_lanes` made flat. Errors: Refusal UPDATE_INVALID for a wrong length."""
        if lanes.shape != (shape.lanes,):
            why = f"{shape.lanes} integers were expected, {lanes.size} came"
            raise Refusal(Code.UPDATE_INVALID, "Counts not read", why, "Use the schema and bins of the job")
        return Counts(shape, lanes.astype(np.int64).reshape(shape.groups, shape.classes, shape.bins))

    def to_lanes(self) -> NDArray[np.int64]:
        """All cells as one vector, the last index running fastest."""
        return self.table.reshape(-1).copy()

    def __add__(self, other: Counts) -> Counts:
        if self.shape != other.shape:
            raise Refusal(Code.UPDATE_INVALID, "Counts not added", "their shapes differ", "Use one job for all sites")
        return Counts(self.shape, self.table + other.table)

    def confusion(self, threshold: float = 0.5) -> NDArray[np.int64]:
        """(groups, labels, predictions). Two classes: positive where the score lies above `threshold`, a bin's edge."""
        if self.shape.classes > 2:
            return self.table
        edge = threshold * self.shape.bins
        if not (edge.is_integer() and 0 <= edge <= self.shape.bins):
            why = f"it is no edge of {self.shape.bins} equal bins"
            raise Refusal(Code.CONFIG_INVALID, f"threshold = {threshold}", why, "Use a multiple of 1/bins")
        below, above = self.table[:, :, : int(edge)], self.table[:, :, int(edge) :]
        return np.stack([below.sum(2), above.sum(2)], 2)

    def accuracy(self, threshold: float = 0.5) -> float | None:
        """Share of all records whose prediction is their label."""
        confusion = self.confusion(threshold)
        return ratio(float(np.trace(confusion.sum(0))), float(confusion.sum()))

    def by_group(self, threshold: float = 0.5) -> list[GroupRates]:
        """The rates of every group, in the order of the schema's groups."""
        return [_rates(one) for one in self.confusion(threshold)]


@dataclass(frozen=True, kw_only=True)
class GroupRates:
    """What one group gets. Rates of selection and of true and false positives only for two classes; else None."""

    n: int
    accuracy: float | None
    selection_rate: float | None
    true_positive_rate: float | None
    false_positive_rate: float | None


def ratio(part: float, whole: float) -> float | None:
    """part / whole, or None where the whole is not positive: an undefined rate is neither 0 nor NaN."""
    return part / whole if whole > 0 else None


def _rates(confusion: NDArray[np.int64]) -> GroupRates:
    """Rates from one group's confusion [label, prediction]."""
    n = int(confusion.sum())
    two = len(confusion) == 2
    return GroupRates(
        n=n,
        accuracy=ratio(float(np.trace(confusion)), n),
        selection_rate=ratio(float(confusion[:, 1].sum()), n) if two else None,
        true_positive_rate=ratio(float(confusion[1, 1]), float(confusion[1].sum())) if two else None,
        false_positive_rate=ratio(float(confusion[0, 1]), float(confusion[0].sum())) if two else None,
    )

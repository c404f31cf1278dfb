"""What each record adds to the gradient of one parameter, kept until its norm is known, then summed in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

AT_ONCE = 1 << 18  # floats that are widened to float64 at a time: 2 MiB
_LEAST, _MOST = 1e-25, 1e30  # squared norms that float32 gives to full precision


class Contribution(Protocol):
    """The gradients of m records with respect to one parameter of p numbers.

    Norms are taken of exactly the numbers that are added: rounding on the way to them cannot loosen the bound.
    """

    def squares(self) -> Tensor:
        """Squared L2 norm of each record's gradient, float64 [m]; NaN or infinite where the gradient is."""

    def kept(self, good: Tensor) -> Contribution:
        """The same with zeros for records outside `good`, bool [m]: a factor of 0 would keep NaN and infinity."""

    def add(self, total: Tensor, factors: Tensor) -> None:
        """Add each record's gradient times its factor, float64 [m], to `total`, float64 [p], in place."""

    def dense(self) -> Tensor:
        """Every number, [m, p]."""

    def on(self, device: torch.device) -> Contribution:
        """The same on another device, for devices without float64."""


@dataclass(frozen=True, repr=False, eq=False)
class Dense:
    """Every number of every record's gradient: rows [m, p]."""

    rows: Tensor

    def squares(self) -> Tensor:
        """See `Contribution`."""
        return _squares(self.rows)

    def kept(self, good: Tensor) -> Dense:
        """See `Contribution`."""
        return Dense(_cleared(self.rows, good))

    def add(self, total: Tensor, factors: Tensor) -> None:
        """See `Contribution`."""
        height = max(1, AT_ONCE // max(1, self.rows.shape[1]))
        for rows, part in zip(torch.split(self.rows, height), torch.split(factors, height), strict=True):
            total.addmv_(rows.double().t(), part)

    def dense(self) -> Tensor:
        """See `Contribution`."""
        return self.rows

    def on(self, device: torch.device) -> Dense:
        """See `Contribution`."""
        return Dense(self.rows.to(device))


@dataclass(frozen=True, repr=False, eq=False)
class Outer:
    """Gradients of rank one, as of a linear layer that is used once: left [m, o] and right [m, i] give [m, o * i]."""

    left: Tensor
    right: Tensor

    def squares(self) -> Tensor:
        """See `Contribution`."""
        return _squares(self.left) * _squares(self.right)

    def kept(self, good: Tensor) -> Outer:
        """See `Contribution`."""
        return Outer(_cleared(self.left, good), _cleared(self.right, good))

    def add(self, total: Tensor, factors: Tensor) -> None:
        """See `Contribution`."""
        left = self.left.double() * factors[:, None]
        total.view(left.shape[1], -1).addmm_(left.t(), self.right.double())

    def dense(self) -> Tensor:
        """See `Contribution`."""
        return torch.bmm(self.left[:, :, None], self.right[:, None, :]).flatten(1)

    def on(self, device: torch.device) -> Outer:
        """See `Contribution`."""
        return Outer(self.left.to(device), self.right.to(device))


@dataclass(frozen=True, repr=False, eq=False)
class Rows:
    """Gradients of a table of `height` rows, of which each record touches few: no row of a record occurs twice.

    record, index  int64 [u], which record touches which row      values  [u, width]      count  records, m
    """

    record: Tensor
    index: Tensor
    values: Tensor
    count: int
    height: int

    @classmethod
    def gathered(cls, record: Tensor, index: Tensor, values: Tensor, size: tuple[int, int]) -> Rows:
        """From touches [u] of which some may be of the same row by the same record.

        size  records, rows of the table
        """
        pairs, place = torch.unique(record * size[1] + index, return_inverse=True)
        summed = values.new_zeros(len(pairs), values.shape[1]).index_add_(0, place, values)
        return cls(pairs // size[1], pairs % size[1], summed, *size)

    def squares(self) -> Tensor:
        """See `Contribution`."""
        squares = _squares(self.values)
        return squares.new_zeros(self.count).index_add_(0, self.record, squares)

    def kept(self, good: Tensor) -> Rows:
        """See `Contribution`."""
        return Rows(self.record, self.index, _cleared(self.values, good[self.record]), self.count, self.height)

    def add(self, total: Tensor, factors: Tensor) -> None:
        """See `Contribution`."""
        weighted = self.values.double() * factors[self.record, None]
        total.view(self.height, -1).index_add_(0, self.index, weighted)

    def dense(self) -> Tensor:
        """See `Contribution`."""
        whole = self.values.new_zeros(self.count * self.height, self.values.shape[1])
        return whole.index_copy_(0, self.record * self.height + self.index, self.values).view(self.count, -1)

    def on(self, device: torch.device) -> Rows:
        """See `Contribution`."""
        record, index, values = (part.to(device) for part in (self.record, self.index, self.values))
        return Rows(record, index, values, self.count, self.height)


def merged(parts: Sequence[Contribution]) -> Contribution:
    """One contribution for a parameter that was used several times: its norm is that of the sum, not of the parts."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, Outer) for part in parts):
        left, right = (torch.stack([getattr(part, side) for part in parts], 1) for side in ("left", "right"))
        return Dense(torch.bmm(left.transpose(1, 2), right).flatten(1))
    return Dense(torch.stack([part.dense() for part in parts]).sum(0))


def _squares(rows: Tensor) -> Tensor:
    """Squared norm of each row of [m, ...], float64; in float64 throughout where float32 would lose it."""
    rows = rows.flatten(1)
    squares = (rows * rows).sum(1).double()
    lost = ~((squares > _LEAST) & (squares < _MOST))
    if bool(lost.any()):
        squares[lost] = rows[lost].double().square().sum(1)
    return squares


def _cleared(rows: Tensor, good: Tensor) -> Tensor:
    return torch.where(good.view(-1, *[1] * (rows.dim() - 1)), rows, 0.0)

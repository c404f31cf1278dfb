"""What each record adds to the gradient of one parameter, kept until its norm is known, then summed in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

AT_ONCE = 1 << 18  # floats that are widened to float64 at a time: 2 MiB
ON_CARD = 1 << 8  # times as many of anything at a time on a graphics card, where a call costs more than a cache saves
SMALL = 1 << 10  # numbers of a parameter up to which a call costs more than what it computes
_RUN = 1 << 8  # squares that are summed in float32, beyond them in float64
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
        height = few(AT_ONCE, self.rows.shape[1], total.device)
        for rows, part in zip(torch.split(self.rows, height), torch.split(factors, height), strict=True):
            total.addmv_(rows.double().t(), part)

    def dense(self) -> Tensor:
        """See `Contribution`."""
        return self.rows

    def on(self, device: torch.device) -> Dense:
        """See `Contribution`."""
        return Dense(self.rows.to(device))


@dataclass(frozen=True, repr=False, eq=False)
class Stack:
    """Gradients that were made for some records at a time: blocks of consecutive records."""

    blocks: tuple[Dense, ...]

    def squares(self) -> Tensor:
        """See `Contribution`."""
        return torch.cat([block.squares() for block in self.blocks])

    def kept(self, good: Tensor) -> Stack:
        """See `Contribution`."""
        return Stack(tuple(block.kept(part) for block, part in self._with(good)))

    def add(self, total: Tensor, factors: Tensor) -> None:
        """See `Contribution`."""
        for block, part in self._with(factors):
            block.add(total, part)

    def dense(self) -> Tensor:
        """See `Contribution`."""
        return torch.cat([block.dense() for block in self.blocks])

    def on(self, device: torch.device) -> Stack:
        """See `Contribution`."""
        return Stack(tuple(block.on(device) for block in self.blocks))

    def _with(self, each: Tensor) -> Iterator[tuple[Dense, Tensor]]:
        """The blocks with their records' part of `each`, [m]."""
        return zip(self.blocks, torch.split(each, [len(block.rows) for block in self.blocks]), strict=True)


@dataclass(frozen=True, repr=False, eq=False)
class Turned:
    """Gradients whose numbers stand in another order than the parameter's, as they came out fastest.

    part  holds each record's as a tensor of `shape`, of which `axes` in their order are those of the parameter
    """

    part: Contribution
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def squares(self) -> Tensor:
        """See `Contribution`."""
        return self.part.squares()

    def kept(self, good: Tensor) -> Turned:
        """See `Contribution`."""
        return Turned(self.part.kept(good), self.shape, self.axes)

    def add(self, total: Tensor, factors: Tensor) -> None:
        """See `Contribution`."""
        self.part.add(room := torch.zeros_like(total), factors)
        total += room.view(self.shape).permute(self.axes).flatten()

    def dense(self) -> Tensor:
        """See `Contribution`."""
        rows = self.part.dense()
        return rows.view(-1, *self.shape).permute(0, *(axis + 1 for axis in self.axes)).flatten(1)

    def on(self, device: torch.device) -> Turned:
        """See `Contribution`."""
        return Turned(self.part.on(device), self.shape, self.axes)


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
        left = self.left.to(torch.float64, copy=True).mul_(factors[:, None])
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
        if len(pairs) == len(index):
            return cls(record, index, values, *size)
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
        weighted = self.values.to(torch.float64, copy=True).mul_(factors[self.record, None])
        total.view(self.height, -1).index_add_(0, self.index, weighted)

    def dense(self) -> Tensor:
        """See `Contribution`."""
        whole = self.values.new_zeros(self.count * self.height, self.values.shape[1])
        return whole.index_copy_(0, self.record * self.height + self.index, self.values).view(self.count, -1)

    def on(self, device: torch.device) -> Rows:
        """See `Contribution`."""
        record, index, values = (part.to(device) for part in (self.record, self.index, self.values))
        return Rows(record, index, values, self.count, self.height)


def few(floats: int, each: int, device: torch.device) -> int:
    """Records at a time for which a processor's cache has room, if one takes `each` of `floats` floats."""
    return max(1, (floats if device.type == "cpu" else floats * ON_CARD) // max(1, each))


def stacked(of: Callable[[Tensor, Tensor], Tensor], x: Tensor, g: Tensor, records: int) -> Contribution:
    """The gradients `of` makes from inputs [m, ...] and gradients of outputs [m, ...], some records at a time."""
    both = zip(torch.split(x, records), torch.split(g, records), strict=True)
    blocks = [of(some, out).reshape(len(out), -1) for some, out in both]
    if len(blocks) > 1 and blocks[0].shape[1] > SMALL:
        return Stack(tuple(Dense(block) for block in blocks))
    return Dense(torch.cat(blocks) if len(blocks) > 1 else blocks[0])


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
    squares = _quickly(rows)
    lost = ~((squares > _LEAST) & (squares < _MOST))
    if bool(lost.any()):
        squares[lost] = rows[lost].double().square().sum(1)
    return squares


def _quickly(rows: Tensor) -> Tensor:
    """The same, right where no square leaves the range of float32: runs of numbers are read once and not written."""
    runs = rows.shape[1] // _RUN
    if rows.shape[1] <= SMALL:
        return (rows * rows).sum(1).double()
    norms: Tensor = torch.linalg.vector_norm(rows[:, : runs * _RUN].view(-1, runs, _RUN), dim=2)
    squares = norms.double().square().sum(1)
    if runs * _RUN < rows.shape[1]:
        squares += rows[:, runs * _RUN :].square().sum(1)
    return squares


def _cleared(rows: Tensor, good: Tensor) -> Tensor:
    return torch.where(good.view(-1, *[1] * (rows.dim() - 1)), rows, 0.0)

"""Adding a micro-batch to the total: each record clipped by its norm over all parameters together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from common.privacy.clipping.contributions import SMALL, Contribution, Dense

SHRINK = 1.0 - 1e-6  # keeps a clipped norm at or below the bound in spite of the rounding of float32 squares

Reached = list[tuple[Tensor, Contribution]]  # a parameter's share of the total, and what its records add


@torch.no_grad()
def add_clipped(shares: Sequence[Tensor], parts: Sequence[Contribution | None], losses: Tensor, bound: float) -> Tensor:
    """Clip each record and add it to the total; returns who counted, bool [m].

    shares  views of the total by parameter, float64      parts  what its records add; None where none reached it
    losses  [m]: a record whose loss is not finite counts as little as one whose gradient is not
    """
    losses = losses.detach()
    squares = torch.zeros(len(losses), dtype=torch.float64, device=losses.device)
    with _side_by_side([(share, part) for share, part in zip(shares, parts, strict=True) if part is not None]) as all_:
        for _, part in all_:
            squares += part.squares()
        factors, good = factors_of(squares, losses, bound)
        whole = bool(good.all())
        for share, part in all_:
            (part if whole else part.kept(good)).add(share, factors)
    return good


def factors_of(squares: Tensor, losses: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """Factor of each record and whether it counts, float64 and bool [m], from its squared norm, float64 [m].

    Guarantee: factor times norm is at most `bound`; a record whose norm or loss is not finite has factor 0.
    """
    norms = squares.sqrt()
    good = torch.isfinite(norms) & torch.isfinite(losses)
    clipped = torch.where(norms > bound * SHRINK, bound * SHRINK / torch.where(norms > 0.0, norms, 1.0), 1.0)
    return torch.where(good, clipped, 0.0), good


@contextmanager
def _side_by_side(reached: Reached) -> Iterator[Reached]:
    """Small parameters as one: a bias takes as many calls as a weight. At the end they are told apart again."""
    small = [(share, part) for share, part in reached if _small(part)]
    if len(small) < 2:
        yield reached
        return
    rows = torch.cat([part.dense() for _, part in small], 1)
    room = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    yield [*((share, part) for share, part in reached if not _small(part)), (room, Dense(rows))]
    sums = torch.split(room, [len(share) for share, _ in small])
    for (share, _), some in zip(small, sums, strict=True):
        share += some


def _small(part: Contribution) -> bool:
    return isinstance(part, Dense) and part.rows.shape[1] <= SMALL

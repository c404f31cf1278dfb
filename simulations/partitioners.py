"""How the records of one data set are dealt to sites: even, uneven, with shifted labels, or as they are by nature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from common.config import finite
from common.errors import Code, Refusal
from common.randomness import child_numpy
from simulations.resampling import Resampled, Rows

ATTEMPTS = 200  # draws of Dirichlet shares before a split counts as impossible


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The table [partition] of a scenario.

    kind           even; uneven (sizes ~ Dirichlet); label (each class ~ Dirichlet over sites); natural (by column);
                   resampled (each site draws `records` of all records, so there may be any number of sites)
    sites          how many; "natural" counts the values of its column instead
    concentration  of the Dirichlet: small is extreme, large is even (Hsu, Qi and Brown 2019)
    minimum        records every site must get
    column         of "natural"      records  of each site of "resampled"
    """

    kind: Literal["even", "uneven", "label", "natural", "resampled"] = "even"
    sites: int = 4
    concentration: float = 1.0
    minimum: int = 8
    column: str = ""
    records: int | None = None

    def __post_init__(self) -> None:
        finite(self.concentration, "concentration", above=0.0)
        if self.sites < 1 or self.minimum < 0:
            raise Refusal(
                Code.CONFIG_INVALID, "partition", "it needs at least one site and no negative minimum", "Correct it"
            )
        if (self.kind == "natural") != bool(self.column):
            why = "`column` belongs to the natural partition, and only to it"
            raise Refusal(Code.CONFIG_INVALID, "partition", why, 'Set kind = "natural" and a column, or neither')
        if (self.kind == "resampled") != (self.records is not None):
            why = "`records` belongs to the resampled partition, and only to it"
            raise Refusal(Code.CONFIG_INVALID, "partition", why, 'Set kind = "resampled" and records, or neither')
        if self.records is not None:
            finite(self.records, "partition.records", at_least=max(1, self.minimum), at_most=2**31)


def partition(
    plan: Partition, labels: NDArray[np.int64], seed: int, homes: Sequence[str] | None = None
) -> Sequence[Rows]:
    """The row numbers of each site, increasing. Every record goes to exactly one site; a seed replays the deal.

    Only in the resampled deal a record may be at many sites, or at none.

    labels  class numbers of all records, [n]
    homes   the value of `plan.column` of each record, for "natural"; sites follow the order of first appearance
    Errors: Refusal CONFIG_INVALID where some site would hold fewer than `plan.minimum` records.
    """
    if plan.kind == "natural":
        return _checked(_natural(homes, len(labels)), plan)
    if plan.records is not None:
        if plan.records > len(labels):
            raise _too_few(plan, len(labels))
        return Resampled(plan.sites, len(labels), plan.records, seed)
    if len(labels) < plan.sites * plan.minimum:
        raise _too_few(plan, len(labels))
    if plan.kind == "even":
        order = child_numpy(seed, "partition", "even").permutation(len(labels))
        return _checked(np.array_split(order, plan.sites), plan)
    deal = _uneven if plan.kind == "uneven" else _by_label
    return _until_enough(deal, plan, labels, seed)


Deal = Callable[[Partition, NDArray[np.int64], np.random.Generator], list[Rows]]


def _until_enough(deal: Deal, plan: Partition, labels: NDArray[np.int64], seed: int) -> tuple[Rows, ...]:
    """The first draw that gives every site its minimum; each attempt has a stream of its own."""
    for attempt in range(ATTEMPTS):
        dealt = deal(plan, labels, child_numpy(seed, "partition", plan.kind, attempt))
        if min(map(len, dealt)) >= plan.minimum:
            return _checked(dealt, plan)
    raise _too_few(plan, len(labels))


def _uneven(plan: Partition, labels: NDArray[np.int64], stream: np.random.Generator) -> list[Rows]:
    """Shuffled records, cut by Dirichlet shares."""
    return _cut(stream.permutation(len(labels)), plan, stream)


def _by_label(plan: Partition, labels: NDArray[np.int64], stream: np.random.Generator) -> list[Rows]:
    """The records of each class, shuffled and cut by Dirichlet shares of their own."""
    dealt: list[list[Rows]] = [[] for _ in range(plan.sites)]
    for label in np.unique(labels):
        for rows, part in zip(
            dealt, _cut(stream.permutation(np.flatnonzero(labels == label)), plan, stream), strict=True
        ):
            rows.append(part)
    return [np.concatenate(rows) if rows else np.zeros(0, np.int64) for rows in dealt]


def _cut(rows: Rows, plan: Partition, stream: np.random.Generator) -> list[Rows]:
    shares = stream.dirichlet(np.full(plan.sites, plan.concentration))
    # A concentration close to zero underflows to shares that are no numbers; then one site takes all.
    if not np.isfinite(shares).all():
        shares = np.eye(plan.sites)[stream.integers(plan.sites)]
    return list(np.split(rows, np.rint(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)))


def _natural(homes: Sequence[str] | None, count: int) -> list[Rows]:
    if homes is None or len(homes) != count:
        raise Refusal(
            Code.CONFIG_INVALID, "Natural partition", "the data set has no such column", "Choose another partition"
        )
    names = np.asarray(homes)
    return [np.flatnonzero(names == name) for name in dict.fromkeys(homes)]


def _checked(dealt: Sequence[Rows], plan: Partition) -> tuple[Rows, ...]:
    if not dealt or min(map(len, dealt)) < plan.minimum:
        raise _too_few(plan, sum(map(len, dealt)))
    return tuple(np.sort(rows).astype(np.int64) for rows in dealt)


def _too_few(plan: Partition, count: int) -> Refusal:
    return Refusal(
        Code.CONFIG_INVALID,
        f"{count} records not dealt by {plan.kind!r}",
        f"some site would hold fewer than {plan.minimum}",
        "Use fewer sites, a smaller minimum or a larger concentration",
    )

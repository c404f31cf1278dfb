"""How the records of one data set are dealt to sites: evenly, by size, by label, by group, or as they are by nature."""

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
from simulations.shares import by_classes, by_group, by_power, whole_homes

Labels = NDArray[np.int64]
Kind = Literal["even", "uneven", "power", "label", "classes", "group", "natural", "homes", "resampled"]
ATTEMPTS = 200  # draws of Dirichlet shares before a split counts as impossible
# What a kind needs besides sites and minimum; every other setting of this list is refused.
NEEDS: dict[Kind, frozenset[str]] = {
    "power": frozenset({"exponent"}),
    "classes": frozenset({"classes"}),
    "group": frozenset({"column", "affinity"}),
    "natural": frozenset({"column"}),
    "homes": frozenset({"column"}),
    "resampled": frozenset({"records"}),
}
_SETTINGS = frozenset().union(*NEEDS.values())


@dataclass(frozen=True, kw_only=True)
class Partition:
    """The table [partition] of a scenario.

    kind           even: sizes alike, records at random (IID)
                   uneven: sizes ~ Dirichlet            power: the k-th site's size falls as k^-exponent
                   label: each class ~ Dirichlet over sites (Hsu, Qi and Brown 2019)
                   classes: every site holds records of so many classes (McMahan et al. 2017; Li et al. 2022, #C=k)
                   group: every value of a sensitive attribute has sites of its own, which it fills
                   natural: a site for each value of a column
                   homes: whole values of a column, such as writers, dealt to sites; none is split
                   resampled: each site draws `records` of all records, so there may be any number of sites
    sites          how many; "natural" counts the values of its column instead
    concentration  of the Dirichlet: small is extreme, large is even
    minimum        records every site must get
    column         of "natural" and "homes"; sensitive attribute of "group"
    classes        of "classes": how many every site holds
    exponent       of "power": 0 is even, 1 is Zipf's law
    affinity       of "group": share of a group's records that go to its own sites; the rest go to all alike
    records        of "resampled": how many every site draws
    """

    kind: Kind = "even"
    sites: int = 4
    concentration: float = 1.0
    minimum: int = 8
    column: str = ""
    classes: int | None = None
    exponent: float | None = None
    affinity: float | None = None
    records: int | None = None

    def __post_init__(self) -> None:
        finite(self.concentration, "concentration", above=0.0)
        if self.sites < 1 or self.minimum < 0:
            raise _invalid("partition", "it needs at least one site and no negative minimum", "Correct it")
        needed = NEEDS.get(self.kind, frozenset())
        given = {name for name in _SETTINGS if getattr(self, name) not in (None, "")}
        if wrong := sorted(needed ^ given):
            verb, do = ("needs", "Give it") if wrong[0] in needed else ("has no use for", "Remove it")
            raise _invalid("partition", f"kind {self.kind!r} {verb} `{wrong[0]}`", do)
        if self.classes is not None:
            finite(self.classes, "classes", at_least=1)
        if self.exponent is not None:
            finite(self.exponent, "exponent", at_least=0.0, at_most=10.0)
        if self.affinity is not None:
            finite(self.affinity, "affinity", at_least=0.0, at_most=1.0)
        if self.records is not None:
            finite(self.records, "records", at_least=max(1, self.minimum), at_most=2**31)


def partition(plan: Partition, labels: Labels, seed: int, homes: Sequence[str] | None = None) -> Sequence[Rows]:
    """The row numbers of each site, increasing. Every record goes to exactly one site; a seed replays the deal.

    Only in the resampled deal a record may be at many sites, or at none.

    labels  class numbers of all records, [n]
    homes   the value of `plan.column` of each record; sites of "natural" follow the order of first appearance
    Errors: Refusal CONFIG_INVALID where some site would hold fewer than `plan.minimum` records, or none can be dealt
    as the plan says.
    """
    if plan.column and (homes is None or len(homes) != len(labels)):
        raise _invalid(f"Partition {plan.kind!r}", "the data set has no such column", "Choose another partition")
    if plan.records is not None:
        if plan.records > len(labels):
            raise _too_few(plan, len(labels))
        return Resampled(plan.sites, len(labels), plan.records, seed)
    if plan.kind != "natural" and len(labels) < plan.sites * max(1, plan.minimum):
        raise _too_few(plan, len(labels))
    stream = child_numpy(seed, "partition", plan.kind)
    match plan.kind:
        case "even":
            dealt = list(np.array_split(stream.permutation(len(labels)), plan.sites))
        case "natural":
            names = np.asarray(homes)
            dealt = [np.flatnonzero(names == name) for name in dict.fromkeys(homes or ())]
        case "power":
            dealt = by_power(len(labels), plan.sites, plan.minimum, plan.exponent or 0.0, stream)
        case "classes":
            dealt = by_classes(labels, plan.sites, plan.classes or 1, stream)
        case "group":
            dealt = by_group(homes or (), plan.sites, plan.affinity or 0.0, stream)
        case "homes":
            dealt = whole_homes(homes or (), plan.sites, stream)
        case _:
            return _until_enough(_uneven if plan.kind == "uneven" else _by_label, plan, labels, seed)
    return _checked(dealt, plan)


Deal = Callable[[Partition, Labels, np.random.Generator], list[Rows]]


def _until_enough(deal: Deal, plan: Partition, labels: Labels, seed: int) -> tuple[Rows, ...]:
    """The first draw that gives every site its minimum; each attempt has a stream of its own."""
    for attempt in range(ATTEMPTS):
        dealt = deal(plan, labels, child_numpy(seed, "partition", plan.kind, attempt))
        if min(map(len, dealt)) >= plan.minimum:
            return _checked(dealt, plan)
    raise _too_few(plan, len(labels))


def _uneven(plan: Partition, labels: Labels, stream: np.random.Generator) -> list[Rows]:
    """Shuffled records, cut by Dirichlet shares."""
    return _cut(stream.permutation(len(labels)), plan, stream)


def _by_label(plan: Partition, labels: Labels, stream: np.random.Generator) -> list[Rows]:
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


def _checked(dealt: Sequence[Rows], plan: Partition) -> tuple[Rows, ...]:
    if not dealt or min(map(len, dealt)) < plan.minimum:
        raise _too_few(plan, sum(map(len, dealt)))
    return tuple(np.sort(rows).astype(np.int64) for rows in dealt)


def _too_few(plan: Partition, count: int) -> Refusal:
    return _invalid(
        f"{count} records not dealt by {plan.kind!r}",
        f"some site would hold fewer than {max(1, plan.minimum)}",
        "Use fewer sites, a smaller minimum or a larger concentration",
    )


def _invalid(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.CONFIG_INVALID, what, why, do)

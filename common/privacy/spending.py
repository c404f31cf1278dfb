"""What the entries of a ledger add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from common.privacy.accounting import REPORT, total_epsilon
from common.privacy.entries import Entry, charged
from common.privacy.mechanism import MechanismPlan, Partition

PARTITIONS: tuple[Partition, ...] = get_args(Partition)


@dataclass(frozen=True)
class Spending:
    """Epsilon of one record at `delta`, by partition.

    A record lies in one partition, chosen by a keyed hash of the record alone, so its epsilon is the larger of the
    two and not their sum (parallel composition).
    nominal  as if all noise had been secret; releases without noise are left out
    void     why nothing may be claimed; empty if the guarantee holds
    """

    delta: float
    nominal: dict[Partition, float]
    void: tuple[str, ...]

    @property
    def epsilon(self) -> float:
        """What may be claimed for every record: `math.inf` if the claim is void."""
        return math.inf if self.void else self.gated

    @property
    def gated(self) -> float:
        """The figure that a site's limit is held against."""
        return max(self.nominal.values(), default=0.0)


def spending_of(entries: Sequence[Entry], delta: float, interval: float = REPORT) -> Spending:
    """What everything charged in `entries` costs at `delta`, from the plans alone."""
    return spending(charged(entries), delta, interval)


def spending(charges: Sequence[tuple[MechanismPlan, int]], delta: float, interval: float = REPORT) -> Spending:
    """What so many steps of these plans cost at `delta`."""
    counted = [(plan, steps) for plan, steps in charges if steps]
    nominal = {
        partition: total_epsilon(
            [p.charge(n) for p, n in counted if p.partition == partition and p.mechanism != "none"], delta, interval
        )
        for partition in PARTITIONS
    }
    return Spending(delta, nominal, tuple(sorted({why for plan, _ in counted for why in _void(plan)})))


def _void(plan: MechanismPlan) -> tuple[str, ...]:
    if plan.mechanism == "none":
        return ("a release had no noise",)
    return ("a release had noise that can be repeated",) if plan.noise != "system" else ()

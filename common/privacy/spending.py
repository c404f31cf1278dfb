"""What the entries of a ledger add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from common.privacy.accounting import REPORT, total_epsilon
from common.privacy.entries import Entry, charged
from common.privacy.mechanism import MechanismPlan, Partition
from common.privacy.units import Unit

PARTITIONS: tuple[Partition, ...] = get_args(Partition)


@dataclass(frozen=True)
class Spending:
    """Epsilon of one record at `delta`, by partition; and of all training records of the site together.

    A record lies in one partition, chosen by a keyed hash of the record alone, so its epsilon is the larger of the
    two and not their sum (parallel composition). What bounds a whole site bounds each of its records.
    nominal  as if all noise had been secret; releases without noise are left out
    site     of the whole site; None if a training release protects single records only, or there was none
    void     why nothing may be claimed; empty if the guarantee holds
    """

    delta: float
    nominal: dict[Partition, float]
    void: tuple[str, ...]
    site: float | None = None

    @property
    def epsilon(self) -> float:
        """What may be claimed for every record: `math.inf` if the claim is void."""
        return math.inf if self.void else self.gated

    @property
    def gated(self) -> float:
        """The figure that a site's limit is held against."""
        return max(*self.nominal.values(), self.site or 0.0)


def spending_of(entries: Sequence[Entry], delta: float, interval: float = REPORT) -> Spending:
    """What everything charged in `entries` costs at `delta`, from the plans alone."""
    return spending(charged(entries), delta, interval)


def spending(charges: Sequence[tuple[MechanismPlan, int]], delta: float, interval: float = REPORT) -> Spending:
    """What so many steps of these plans cost at `delta`."""
    counted = [(plan, steps) for plan, steps in charges if steps]
    noisy = [(plan, plan.charge(steps)) for plan, steps in counted if plan.mechanism != "none"]
    nominal = {
        part: total_epsilon([c for p, c in noisy if p.partition == part and p.bounds_records], delta, interval)
        for part in PARTITIONS
    }
    train = [plan for plan, _ in counted if plan.partition == "train"]
    whole = [charge for plan, charge in noisy if plan.partition == "train" and plan.unit is Unit.SITE]
    site = total_epsilon(whole, delta, interval) if train and all(plan.bounds_sites for plan in train) else None
    return Spending(delta, nominal, tuple(sorted({why for plan, _ in counted for why in _void(plan)})), site)


def _void(plan: MechanismPlan) -> tuple[str, ...]:
    if plan.mechanism == "none":
        return ("a release had no noise",)
    return ("a release had noise that can be repeated",) if plan.noise != "system" else ()

"""What the entries of a ledger add up to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import get_args

from common.privacy.accounting import REPORT, total_epsilon
from common.privacy.chain import charged
from common.privacy.entries import Entry
from common.privacy.filter import best_order, filtered_epsilon
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
    orders   of the Rényi filter, by what is protected, where releases have more than one plan: the later ones may have
             been chosen by looking at what was released, and composing privacy loss distributions does not allow that
    rings    noise of integers in rings of few bits, in words: Rényi divergences account for it, where that is less
    void     why nothing may be claimed; empty if the guarantee holds
    """

    delta: float
    nominal: dict[Partition, float]
    void: tuple[str, ...]
    site: float | None = None
    orders: dict[str, int] = field(default_factory=dict)
    rings: tuple[str, ...] = ()

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
    counted = _merged(charges)
    noisy = [(plan, steps) for plan, steps in counted if plan.mechanism != "none"]
    records = {
        part: [one for one in noisy if one[0].partition == part and one[0].bounds_records] for part in PARTITIONS
    }
    nominal = {part: _together(those, delta, interval) for part, those in records.items()}
    train = [plan for plan, _ in counted if plan.partition == "train"]
    whole = [one for one in noisy if one[0].partition == "train" and one[0].unit is Unit.SITE]
    site = _together(whole, delta, interval) if train and all(plan.bounds_sites for plan in train) else None
    summed = {"training records": records["train"], "held-out records": records["holdout"], "the site": whole}
    orders = {name: _order(those, delta) for name, those in summed.items() if len(those) > 1}
    void = tuple(sorted({why for plan, _ in counted for why in _void(plan)}))
    rings = sorted({f"{plan.mechanism} noise in {plan.bits} bits" for plan, _ in counted if plan.bits})
    return Spending(delta, nominal, void, site, orders, tuple(rings))


def _merged(charges: Iterable[tuple[MechanismPlan, int]]) -> list[tuple[MechanismPlan, int]]:
    """Each plan once, with all its steps, in the order in which they were first charged."""
    plans: dict[str, MechanismPlan] = {}
    steps: Counter[str] = Counter()
    for plan, more in charges:
        plans.setdefault(plan.plan_id, plan)
        steps[plan.plan_id] += more
    return [(plan, steps[plan_id]) for plan_id, plan in plans.items() if steps[plan_id]]


def _together(charges: Sequence[tuple[MechanismPlan, int]], delta: float, interval: float) -> float:
    """Epsilon of one plan's releases, or of several plans', the later of which were chosen with eyes open."""
    listed = [plan.charge(steps) for plan, steps in charges]
    if len(listed) < 2:
        return total_epsilon(listed, delta, interval)
    return filtered_epsilon(listed, _order(charges, delta), delta)


def _order(charges: Sequence[tuple[MechanismPlan, int]], delta: float) -> int:
    """The order of the filter: best for all that the first plan may release, which was known before any release."""
    first, _ = charges[0]
    return best_order(first.charge(first.steps * first.releases), delta)


def _void(plan: MechanismPlan) -> tuple[str, ...]:
    if plan.mechanism == "none":
        return ("a release had no noise",)
    return ("a release had noise that can be repeated",) if plan.noise != "system" else ()

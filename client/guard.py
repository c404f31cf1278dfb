"""The only way out of a site: a charge on disk before records are read, and a settled release before it leaves."""

from __future__ import annotations

import hashlib
import math
import secrets
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.lanes import LANE_LIMIT, checked, rounded, scaled, unfit
from client.limits import Limit, limit_change
from client.marks import ending, stride
from common.errors import Code, Refusal
from common.privacy.accounting import ONLINE
from common.privacy.clipped import Clipped, Counted, PrivateUpdate
from common.privacy.entries import Facts
from common.privacy.ledger import Kind, Ledger, new_entry
from common.privacy.mechanism import MechanismPlan
from common.privacy.noise import integer_noise
from common.privacy.spending import Spending, spending
from common.privacy.units import Unit
from common.randomness import Entropy


@dataclass(frozen=True)
class Reservation:
    """A charge that is on disk. Only `Guard.reserve` makes one; it pays for one release.

    every  steps from one mark in the ledger to the next; 0: none are written
    """

    seq: int
    plan: MechanismPlan
    steps: int
    after: Spending
    every: int = 0


class Inner(NamedTuple):
    """What leaves only inside noise for the whole site: an update with noise for single records, and its charge."""

    charge: Reservation
    update: PrivateUpdate


@dataclass(frozen=True, repr=False, eq=False)
class Release:
    """What may leave the site. Only a guard makes one, after the ledger has settled it.

    lanes  int64 (sums and counts) or float64 (updates), as the reservation's plan says
    spent  of the data set with this release      head  of the ledger with it
    """

    lanes: NDArray[np.int64] | NDArray[np.float64]
    spent: Spending
    head: bytes


class Guard:
    """Charges, noises and settles what one data set gives away.

    Killed at any point, the ledger never holds less than was released: the charge is on disk before the records
    are read, and only a settled release lowers it, to the steps that were executed; or the end of work without a
    release, to the steps up to the mark that would have come next.
    """

    def __init__(self, ledger: Ledger, limit: Limit, versions: dict[str, str] | None = None):
        self._ledger, self._limit, self._versions = ledger, limit, versions or {}

    @property
    def spent(self) -> Spending:
        """What all releases so far cost at the site's delta."""
        return self._ledger.spending(self._limit.delta)

    def after(self, plan: MechanismPlan, steps: int | None = None) -> Spending:
        """What the data set will have cost once `steps` steps of `plan` are charged as well."""
        steps = plan.steps if steps is None else steps
        return spending([*self._ledger.charges, (plan, steps)], self._limit.delta, ONLINE)

    def refuse_beyond(self, plan: MechanismPlan, steps: int | None = None) -> None:
        """Refuse if `steps` steps of `plan`, one release if not given, are more than what is left.

        Errors: Refusal BUDGET_EXHAUSTED; nothing is charged.
        """
        steps = plan.steps if steps is None else steps
        if plan.mechanism != "none" and not self.after(plan, steps).gated <= self._limit.epsilon:
            raise self._exhausted(plan, steps, self.spent)

    def refuse_early(self, plan: MechanismPlan, run: str, round_number: int) -> None:
        """Hold the coordinator to the turns of a plan with correlated noise: what one turn costs counts on them.

        A round that is repeated is the same turn. Errors: Refusal TURN_TOO_EARLY; nothing is charged.
        """
        turns = [
            entry.facts.round
            for entry in (self._ledger.entries if plan.separation else ())
            if entry.plan_id == plan.plan_id and entry.facts and entry.facts.run == run
        ]
        if any(0 < abs(round_number - turn) < plan.separation for turn in turns):
            raise Refusal(
                Code.TURN_TOO_EARLY,
                f"Round {round_number} not worked on",
                f"this site had its turn in round {turns[-1]}, and {plan.separation} rounds must lie between two turns",
                "Ask the sites in turns",
            )

    def reserve(self, plan: MechanismPlan, facts: Facts, steps: int | None = None) -> Reservation:
        """Charge one release of `plan`, on disk, before any record is read.

        steps  accounted steps, the plan's own if not given
        A limit that is another than at the last charge is written down first.
        Errors: Refusal BUDGET_EXHAUSTED if the charge would exceed the limit, POLICY_PRIVACY if the limit was changed
        without a reason; then nothing is charged.
        """
        steps = plan.steps if steps is None else steps
        change = limit_change(self._ledger.entries, self._limit)
        before, after = self.spent, self.after(plan, steps)
        if plan.mechanism != "none" and not after.gated <= self._limit.epsilon:
            raise self._exhausted(plan, steps, before)
        if change is not None:
            self._ledger.append(change)
        every = stride(plan, steps)
        entry = self._ledger.append(
            new_entry(
                Kind.RESERVE,
                facts=facts,
                partition=plan.partition,
                plan_id=plan.plan_id,
                plan=plan,
                steps=steps,
                every=every,
                versions=self._versions,
                epsilon_before=_informative(before),
                epsilon_after=_informative(after),
                budget=self._limit.epsilon,
                delta=self._limit.delta,
            )
        )
        return Reservation(entry.seq, plan, steps, after, every)

    def executed(self, reservation: Reservation, steps: int) -> None:
        """Say, before each further step, that so many were executed; where a mark is due it is on disk afterwards.

        Errors: as `Ledger.append`; then no further step may be executed.
        """
        if reservation.every and 0 < steps < reservation.steps and steps % reservation.every == 0:
            self._ledger.append(new_entry(Kind.MARK, reserve=reservation.seq, steps=steps))

    def release_sum(self, reservation: Reservation, clipped: Clipped, entropy: Entropy) -> Release:
        """Mode M2: scale to integers, round, add this site's share of the noise, settle.

        clipped  lanes in model units, each record at most the plan's `record_bound` of them
        Result: int64 lanes; the sum over sites divided by `plan.scale` is in model units again.
        Errors: Refusal UPDATE_INVALID, POLICY_RELEASE; the charge stands.
        """
        plan = reservation.plan
        self._refuse_unfit(plan, entropy, mechanism="gaussian", mode="M2")
        lanes = scaled(clipped, plan) + integer_noise(plan, entropy)
        return self._settled(reservation, lanes, reservation.steps)

    def release_site(
        self, reservation: Reservation, clipped: Clipped, entropy: Entropy, inner: Inner | None = None
    ) -> Release:
        """Modes M3 to M5: scale a site's one vector to integers, round, add its share of the noise in M4, settle.

        clipped  lanes in units of the clip, all of the site at most the plan's `record_bound` of them; rotated where
                 the plan has a ring of its own. Rounding is then random, under a norm that is never exceeded
        inner    of a layered plan: what was made under the charge for single records
        Where the coordinator adds the noise, this has none, and only secure aggregation hides it.
        Errors: as `release_sum`.
        """
        plan = reservation.plan
        if plan.unit is not Unit.SITE:
            raise unfit("its plan protects single records")
        self._refuse_unfit(plan, entropy, mechanism=plan.mechanism if plan.bits else "gaussian", mode=plan.mode)
        if plan.layered != (inner is not None):
            raise unfit("its plan counts on noise for single records, or on none")
        if inner is not None:
            charge, update = inner
            if update.plan_id != charge.plan.plan_id or update.steps > charge.steps:
                raise unfit("it was not made under the plan that was charged for single records")
            self._ledger.append(new_entry(Kind.SETTLE, reserve=charge.seq, steps=update.steps))
        lanes = rounded(clipped, plan, entropy) if plan.bits else scaled(clipped, plan)
        return self._settled(reservation, lanes if plan.central else lanes + integer_noise(plan, entropy), 1)

    def release_counts(self, reservation: Reservation, counted: Counted, entropy: Entropy) -> Release:
        """Counts with this site's share of the discrete noise, int64; exact ones in mode "none"; settled.

        Errors: Refusal UPDATE_INVALID, POLICY_RELEASE; the charge stands.
        """
        plan, counts = reservation.plan, counted.total
        if plan.purpose != "counts" or counts.dtype != np.int64:
            raise unfit("the plan is not one for integer counts")
        if counts.shape != (plan.dimension,) or counts.min(initial=0) < 0 or counts.max(initial=0) > LANE_LIMIT:
            raise Refusal(
                Code.UPDATE_INVALID, "Counts not released", f"the plan says {plan.dimension} counts", "Use its schema"
            )
        if plan.mechanism == "none":
            return self._settled(reservation, counts.copy(), reservation.steps)
        self._refuse_unfit(plan, entropy, mechanism="discrete-gaussian", mode=plan.mode)
        return self._settled(reservation, counts + integer_noise(plan, entropy), reservation.steps)

    def release_update(self, reservation: Reservation, update: PrivateUpdate, bound: float) -> Release:
        """Mode M1: an update whose steps were noised already, each coordinate held to [-bound, bound]; settled.

        Errors: Refusal UPDATE_INVALID, POLICY_RELEASE if it comes from another plan or from more steps than were
        reserved; the charge stands.
        """
        plan = reservation.plan
        if plan.mode != "M1" or plan.purpose != "train" or update.plan_id != plan.plan_id:
            raise unfit("it was not made under the plan that was charged")
        if update.steps > reservation.steps:
            raise unfit(f"it took {update.steps} steps where {reservation.steps} were charged")
        return self._settled(reservation, checked(update.value, plan).clip(-bound, bound), update.steps)

    def release_plain(self, reservation: Reservation, value: NDArray[np.float64], bound: float) -> Release:
        """Mode "none": the update as it is, each coordinate held to [-bound, bound]; voids every claim.

        Errors: Refusal UPDATE_INVALID, POLICY_RELEASE under any other mode.
        """
        plan = reservation.plan
        if plan.mechanism != "none" or plan.purpose != "train":
            raise unfit("its plan demands noise")
        return self._settled(reservation, checked(value, plan).clip(-bound, bound), reservation.steps)

    def abort(self, reservation: Reservation, reason: Code) -> None:
        """Write down that a reservation ended without an output, if it did.

        What was charged stays charged: all of it, or the steps up to the mark that would have come next.
        """
        if reservation.seq in self._ledger.open:
            self._ledger.append(ending(self._ledger, reservation.seq, reason))

    def _settled(self, reservation: Reservation, lanes: NDArray[np.int64] | NDArray[np.float64], steps: int) -> Release:
        """Commit to `lanes` on disk, then hand them out. A reservation settles once."""
        salt = secrets.token_bytes(32)
        output = hashlib.sha256(salt + np.ascontiguousarray(lanes).tobytes()).hexdigest()
        entry = new_entry(Kind.SETTLE, reserve=reservation.seq, steps=steps, output=output)
        self._ledger.append(entry, salt=salt)
        return Release(lanes, self.spent, self._ledger.head)

    def _refuse_unfit(self, plan: MechanismPlan, entropy: Entropy, *, mechanism: str, mode: str) -> None:
        if (plan.mechanism, plan.mode) != (mechanism, mode):
            raise unfit("the plan is of another kind")
        if entropy.kind != plan.noise:
            raise unfit(f"its noise would be of kind {entropy.kind!r}, the plan says {plan.noise!r}")

    def _exhausted(self, plan: MechanismPlan, steps: int, before: Spending) -> Refusal:
        """The refusal of a charge, with what is left of the budget."""
        left = math.floor(1000 * max(0.0, self._limit.epsilon - before.gated)) / 1000  # never more than there is
        return Refusal(
            Code.BUDGET_EXHAUSTED,
            f"{steps} steps of mode {plan.mode} not run",
            f"they would cost more than the {left:g} that is left of the site's epsilon of {self._limit.epsilon:g}",
            "Ask the keeper of the site, or plan fewer rounds with more noise",
        )


def _informative(spent: Spending) -> float | None:
    return round(spent.epsilon, 6) if math.isfinite(spent.epsilon) else None

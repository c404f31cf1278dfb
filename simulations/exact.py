"""Sums as secure aggregation would open them, without masks: the same cohorts, clips, weights, noise and groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from client.site_level import bounded
from common.errors import Code, Refusal
from common.orders import Task
from common.privacy.mechanism import MechanismPlan
from common.privacy.noise import integer_noise
from common.privacy.units import Unit
from common.randomness import child
from common.secagg.codec import RangeCodec, Sum
from common.work import Work
from server.aggregation import Gathered, Part
from server.checkpoints import State
from server.groups import grouped
from server.opening import Notes
from simulations.engines.engine import Engine, Turn
from simulations.faults import lost
from simulations.ground import Ground
from simulations.scenario import World

_NONE = np.zeros(0, np.int64)


class ExactSums:
    """`server.protocols.Sums` over a world in memory.

    What differs from masked sums: a sum is rounded to the ring's integers once, where sites round each for itself, and
    nothing is charged. Noise, clips, weights and who takes part are the same; so is the model, up to that rounding.
    """

    def __init__(self, work: Work, world: World, ground: Ground, engine: Engine):
        self._work, self._world, self._ground, self._engine = work, world, ground, engine

    def gather(
        self, task: Task, round_number: int, attempt: int, state: State, cohort: Iterable[int], *, least: int = 1
    ) -> Gathered:
        """See `Sums`."""
        notes, quorum, asked = Notes(), self._work.job.aggregation.quorum, tuple(cohort)
        turn = Turn(task, round_number, attempt, state.parameters.astype(np.float32))
        try:
            groups = grouped(
                asked,
                self._work.groups(task),
                fits=lambda group: len(group) >= quorum,
                draw=child(self._work.job.seed, "groups", round_number, attempt),
            )
        except Refusal as refusal:
            return Gathered((), refusal.code, notes=notes)
        parts = []
        for group in groups:
            answered = tuple(site for site in group if not self._lost(site, turn))
            notes.refused.update(dict.fromkeys(set(group).difference(answered), Code.SITE_UNREACHABLE))
            if len(answered) >= quorum:
                parts.append(Part(answered, self._sum(turn, answered, state.clip)))
        return Gathered(tuple(parts), None if len(parts) >= least else Code.E_TOO_FEW, notes=notes)

    def _lost(self, site: int, turn: Turn) -> bool:
        place = (site, turn.task, turn.round, turn.attempt)
        return lost(self._world.seed, self._world.faults.dropout, place)

    def _sum(self, turn: Turn, sites: Sequence[int], clip: float) -> Sum:
        plan = self._work.plan(turn.task)
        if turn.task == "evaluate":
            return Sum(len(sites), self._engine.counts(turn, sites) + self._noise(turn, sites, plan), _NONE)
        if plan.mode == "M2":
            found = self._engine.gradients(turn, sites)
            return self._integers(turn, plan, ((site, each.total) for site, each in found))
        if plan.unit is Unit.SITE:
            lanes = ((site, bounded(each, plan, clip).total) for site, each in self._changes(turn, sites))
            return self._integers(turn, plan, lanes)
        return self._ranged(turn, sites, plan)

    def _changes(self, turn: Turn, sites: Sequence[int]) -> Iterable[tuple[int, NDArray[np.float64]]]:
        """Each site's update; with noise for single records where the job asks for it inside that of the site."""
        if self._work.local is None:
            return self._engine.updates(turn, sites)
        return ((site, update.value) for site, update in self._engine.privately(turn, sites))

    def _integers(self, turn: Turn, plan: MechanismPlan, lanes: Iterable[tuple[int, NDArray[np.float64]]]) -> Sum:
        """The sum of each site's scaled and rounded lanes with its share of the noise."""
        total, count = np.zeros(plan.dimension, np.int64), 0
        for site, each in lanes:
            total += np.rint(each * plan.scale).astype(np.int64)
            if not plan.central:
                total += integer_noise(plan, self._ground.assignment(site, turn.task, turn.place).entropy("noise"))
            count += 1
        return Sum(count, total, _NONE)

    def _ranged(self, turn: Turn, sites: Sequence[int], plan: MechanismPlan) -> Sum:
        """The weighted sum of updates whose coordinates are held to the codec's bound."""
        codec = self._work.codec("train")
        if not isinstance(codec, RangeCodec):
            raise TypeError("updates of sites are weighted in range mode only")
        weights = np.array([min(self._ground.nominal(site), codec.weight_cap) / codec.weight_cap for site in sites])
        total = self._private_total if plan.mode == "M1" else self._plain_total
        values = np.rint(total(turn, sites, weights, codec.bound) * (codec.steps / codec.bound)).astype(np.int64)
        return Sum(len(sites), values, np.array([round(float(weights.sum()) * codec.steps)], np.int64))

    def _private_total(
        self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64], bound: float
    ) -> NDArray[np.float64]:
        total = np.zeros(turn.parameters.size)
        for weight, (_, update) in zip(weights, self._engine.privately(turn, sites), strict=True):
            total += weight * update.value.clip(-bound, bound)
        return total

    def _plain_total(
        self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64], bound: float
    ) -> NDArray[np.float64]:
        """No coordinate of an update is larger than its norm, so only the sites whose norm is are looked at again."""
        share = self._engine.share(turn, sites, weights, np.inf)
        if not np.isfinite(share.norms).all():
            raise Refusal(
                Code.UPDATE_INVALID,
                f"Round {turn.round} not summed",
                f"training diverged at {int((~np.isfinite(share.norms)).sum())} sites",
                "Lower the learning rate of the job",
            )
        total, long = share.sum, np.flatnonzero(share.norms > bound).tolist()
        again = self._engine.updates(turn, [sites[place] for place in long])
        for place, (_, update) in zip(long, again, strict=True):
            total += weights[place] * (update.clip(-bound, bound) - update)
        return total

    def _noise(self, turn: Turn, sites: Sequence[int], plan: MechanismPlan) -> NDArray[np.int64]:
        """What all sites together add to counts."""
        total = np.zeros(plan.dimension, np.int64)
        if plan.mechanism != "none":
            for site in sites:
                total += integer_noise(plan, self._ground.assignment(site, turn.task, turn.place).entropy("noise"))
        return total

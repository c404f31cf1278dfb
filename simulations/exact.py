"""Sums as secure aggregation would open them, without masks: the same cohorts, clips, weights, noise and groups."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from client.site_level import bounded, turned
from common.errors import Code, Refusal
from common.orders import Task
from common.privacy.clipped import Clipped
from common.privacy.mechanism import MechanismPlan
from common.privacy.noise import integer_noise
from common.privacy.units import Unit
from common.randomness import child
from common.secagg.codec import RangeCodec, Sum
from common.secagg.masks import reduce
from common.secagg.rounding import round_within
from common.work import Work, turned_codec
from server.aggregation import Gathered, Part
from server.checkpoints import State
from server.cohort import Patience
from server.groups import grouped
from server.opening import Notes
from simulations.adversaries.band import Band
from simulations.adversaries.form import Form
from simulations.course import Course
from simulations.engines.engine import Engine, Turn
from simulations.ground import Ground

_NONE = np.zeros(0, np.int64)


class ExactSums:
    """`server.protocols.Sums` over a world in memory.

    What differs from masked sums: a sum is rounded to the ring's integers once, where sites round each for itself, and
    nothing is charged. Noise, clips, weights and who takes part are the same; so is the model, up to that rounding.

    band  the sites that lie, if some do: their reports are added to what honest ones sum to, whatever is in them
    """

    def __init__(self, work: Work, course: Course, ground: Ground, engine: Engine, band: Band | None = None):
        self._work, self._course, self._ground, self._engine = work, course, ground, engine
        self._patience, self._band = Patience(), band

    def gather(
        self, task: Task, round_number: int, attempt: int, state: State, cohort: Iterable[int], *, least: int = 1
    ) -> Gathered:
        """See `Sums`."""
        notes, quorum, count = Notes(), self._work.job.aggregation.quorum, self._work.groups(task)
        turn = Turn(task, round_number, attempt, state.parameters.astype(np.float32))
        draw = child(self._work.job.seed, "groups", round_number, attempt)
        asked = self._patience.asked(cohort, quorum * count)
        try:
            groups = grouped(asked, count, fits=lambda group: len(group) >= quorum, draw=draw)
        except Refusal as refusal:
            return Gathered((), refusal.code, notes=notes)
        if self._band:
            self._band.conspire(turn, asked, state.clip)
        came, parts, failure = self._came(asked, turn, notes), [], Code.E_TOO_FEW
        for group in groups:
            answered = tuple(site for site in group if site in came)
            try:
                if len(answered) >= quorum and (part := self._sum_of(turn, answered, state.clip, notes)):
                    parts.append(part)
            except Refusal as refusal:
                if refusal.code is not Code.E_SUM_CHECK:
                    raise
                failure = refusal.code
        return Gathered(tuple(parts), None, notes=notes) if len(parts) >= least else Gathered((), failure, notes=notes)

    def _came(self, asked: Sequence[int], turn: Turn, notes: Notes) -> frozenset[int]:
        """The sites whose answers are here when the attempt closes; the others are left out of the next rounds, as in a
        deployment.
        """
        begun, deadline = self._course.clock.now(), self._work.job.aggregation.deadline_seconds
        fates = self._course.fates(asked, (turn.task, *turn.place), deadline)
        self._course.wait(fates, begun, deadline)
        came = frozenset(site for site, fate in fates.items() if fate.end == "answered")
        for site in asked:
            self._patience.note(site, silent=site not in came)
            if site not in came:
                notes.refused[site] = Code.SITE_UNREACHABLE
        return came

    def _sum_of(self, turn: Turn, sites: Sequence[int], clip: float, notes: Notes) -> Part | None:
        """The sum of these sites' answers, lies among them; None if too few have one. Errors: Refusal E_SUM_CHECK."""
        lying = [site for site in sites if self._band and self._band.lies(site, turn.place)]
        honest = [site for site in sites if site not in lying]
        part = self._part(turn, honest, clip, notes) if honest else None
        if self._band and lying:
            part = _with_lies(part, Form(self._work, clip), self._band, lying, notes)
        return part if part and len(part.sites) >= self._work.job.aggregation.quorum else None

    def _part(self, turn: Turn, sites: Sequence[int], clip: float, notes: Notes) -> Part | None:
        """The sum of these sites' answers without any lie; None if none has one."""
        plan = self._work.plan(turn.task)
        if turn.task == "evaluate":
            return Part(tuple(sites), self._counted(turn, sites, plan))
        if plan.mode == "M2":
            found = self._engine.gradients(turn, sites)
            return Part(tuple(sites), self._integers(turn, plan, ((site, each.total) for site, each in found)))
        if plan.unit is Unit.SITE:
            vectors = ((site, bounded(each, plan, clip)) for site, each in self._changes(turn, sites))
            if plan.bits:
                return Part(tuple(sites), self._turned(turn, plan, vectors))
            return Part(tuple(sites), self._integers(turn, plan, ((site, each.total) for site, each in vectors)))
        part = self._private_total(turn, sites) if plan.mode == "M1" else self._plain_total(turn, sites)
        notes.refused.update(dict.fromkeys(set(sites).difference(part.sites), Code.UPDATE_INVALID))
        return part if part.sites else None

    def _changes(self, turn: Turn, sites: Sequence[int]) -> Iterable[tuple[int, NDArray[np.float64]]]:
        """Each site's update; with noise for single records where the job asks for it inside that of the site."""
        if self._work.local is None:
            return self._engine.updates(turn, sites)
        nothing = np.full(turn.parameters.size, np.nan)
        found = self._engine.privately(turn, sites)
        return ((site, nothing if update is None else update.value) for site, update in found)

    def _integers(self, turn: Turn, plan: MechanismPlan, lanes: Iterable[tuple[int, NDArray[np.float64]]]) -> Sum:
        """The sum of each site's scaled and rounded lanes with its share of the noise."""
        total, count = np.zeros(plan.dimension, np.int64), 0
        for site, each in lanes:
            total += np.rint(each * plan.scale).astype(np.int64)
            if not plan.central:
                total += integer_noise(plan, self._ground.assignment(site, turn.task, turn.place).entropy("noise"))
            count += 1
        return Sum(count, total, _NONE)

    def _turned(self, turn: Turn, plan: MechanismPlan, vectors: Iterable[tuple[int, Clipped]]) -> Sum:
        """The sum of each site's rotated and rounded vector with its noise, in a ring in which lanes may wrap."""
        codec, seed, count = turned_codec(plan, self._work.roster.rules.sites_max), self._work.turn(turn.round), 0
        total = codec.ring.zeros()
        for site, each in vectors:
            noise = self._ground.assignment(site, turn.task, turn.place).entropy("noise")
            lanes = turned(each, plan, seed).total * plan.scale
            integers = round_within(lanes, plan.sensitivity, noise) + integer_noise(plan, noise)
            total += codec.framed(integers).lanes
            count += 1
        return codec.open_sum(reduce(codec.ring, total), count)

    def _private_total(self, turn: Turn, sites: Sequence[int]) -> Part:
        found = self._engine.privately(turn, sites)
        return self._by_rows(turn, ((site, None if update is None else update.value) for site, update in found))

    def _plain_total(self, turn: Turn, sites: Sequence[int]) -> Part:
        """No coordinate of an update is larger than its norm: where all norms are within the bound, nothing is clipped
        and no update has to be looked at by itself.
        """
        share = self._engine.share(turn, sites, self._weights(sites), np.inf)
        short = [site for site, norm in zip(sites, share.norms, strict=True) if norm <= self._codec.bound]
        if len(short) == len(sites):
            return self._ranged(sites, share.sum)
        rest = self._by_rows(turn, self._engine.updates(turn, sorted(set(sites).difference(short))))
        if not short:
            return rest
        most = self._ranged(short, self._engine.share(turn, short, self._weights(short), np.inf).sum)
        return Part(tuple(sorted(most.sites + rest.sites)), most.sum + rest.sum)

    def _by_rows(self, turn: Turn, updates: Iterable[tuple[int, NDArray[np.float64] | None]]) -> Part:
        """The sum of these updates, each coordinate held to the bound, without those that are not finite."""
        total, sites, bound = np.zeros(turn.parameters.size), [], self._codec.bound
        for site, update in updates:
            if update is not None and np.isfinite(update).all():
                total += self._weights([site])[0] * update.clip(-bound, bound)
                sites.append(site)
        return self._ranged(sites, total)

    def _ranged(self, sites: Sequence[int], total: NDArray[np.float64]) -> Part:
        """A weighted sum as the integers that the codec opens."""
        codec = self._codec
        values = np.rint(total * (codec.steps / codec.bound)).astype(np.int64)
        weight = round(float(self._weights(sites).sum()) * codec.steps)
        return Part(tuple(sites), Sum(len(sites), values, np.array([weight], np.int64)))

    def _weights(self, sites: Sequence[int]) -> NDArray[np.float64]:
        cap = self._codec.weight_cap
        return np.array([min(self._ground.nominal(site), cap) / cap for site in sites])

    @property
    def _codec(self) -> RangeCodec:
        codec = self._work.codec("train")
        if not isinstance(codec, RangeCodec):
            raise TypeError("updates of sites are weighted in range mode only")
        return codec

    def _counted(self, turn: Turn, sites: Sequence[int], plan: MechanismPlan) -> Sum:
        """The counts of these sites, and what all of them add to it."""
        total = self._engine.counts(turn, sites)
        if plan.mechanism != "none":
            for site in sites:
                total += integer_noise(plan, self._ground.assignment(site, turn.task, turn.place).entropy("noise"))
        return Sum(len(sites), total, _NONE)


def _with_lies(part: Part | None, form: Form, band: Band, lying: Sequence[int], notes: Notes) -> Part | None:
    """The sum of a group's reports as a coordinator opens it. part: of its honest sites, if any has answered.

    Errors: Refusal E_SUM_CHECK for one that it does not believe.
    """
    sites, total = list(part.sites) if part else [], part.sum if part else None
    for site in lying:
        try:
            added = form.added(site, band.sent(site))
        except Refusal as refusal:
            notes.refused[site] = refusal.code
            continue
        sites, total = [*sites, site], added if total is None else total + added
    return Part(tuple(sorted(sites)), form.opened(total)) if total else None

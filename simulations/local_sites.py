"""The sites of a world without sockets: a frame goes to a session, and its answer comes when the world's clock says."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.frames import unpack
from common.messages import LIMIT, AnyOrder, Envelope, WorkOrder
from common.secagg.pairwise.orders import AdvertiseOrder, AgreeOrder, MaskOrder, PairDealOrder, RevealOrder
from simulations.agents import Agents
from simulations.ahead import Ahead
from simulations.course import Course, Fate
from simulations.engines.engine import Turn

STAGES = (AdvertiseOrder, PairDealOrder, MaskOrder, AgreeOrder, RevealOrder)
Frames = bytes | Mapping[int, bytes]


@dataclass(frozen=True)
class LocalSites:
    """`Sites` without sockets.

    course  what goes wrong, and what time it is
    ahead   computes the work of many sites before their sessions are asked; None: each session computes its own

    An answer that is lost, late, or of a site that dies in mid-work was worked for and charged, as in a deployment. Of
    an attempt by pairwise masks, the answer to any of its stages may be lost.
    """

    agents: Agents
    course: Course
    ahead: Ahead | None = None

    def present(self) -> frozenset[int]:
        """Sites that are up."""
        return frozenset(site for site in self.agents if self.course.up(site))

    def ask(self, frames: Frames, to: Collection[int], deadline_seconds: float) -> Iterator[tuple[int, bytes | None]]:
        """See `server.gathering.Sites`; answers come in the order of their simulated times."""
        if not to:
            return
        sites, begun = sorted(to), self.course.clock.now()
        order = order_in(_frame(frames, sites[0]))  # those of one attempt differ in nothing that matters here
        heard: Iterator[tuple[int, bytes | None, float]]
        if isinstance(order, WorkOrder | AdvertiseOrder):
            heard = self._worked(order, frames, sites, deadline_seconds)
        else:
            heard = self._said(order, frames, sites, begun + deadline_seconds)
        silent = []
        for site, answer, moment in heard:
            if math.isinf(moment):
                silent.append(site)
                continue
            self.course.clock.reach(moment)
            yield site, answer
        if silent:
            self.course.clock.reach(begun + deadline_seconds)
        yield from ((site, None) for site in silent)

    def _worked(
        self, order: WorkOrder | AdvertiseOrder, frames: Frames, sites: Sequence[int], deadline_seconds: float
    ) -> Iterator[tuple[int, bytes | None, float]]:
        """Each site, its answer, and when that is here; never: infinite."""
        stages = 1 if isinstance(order, WorkOrder) else len(STAGES)
        fates = self.course.fates(sites, (order.task, order.round, order.attempt), deadline_seconds, stages)
        turn = sorted(fates, key=lambda site: (fates[site].heard, site))
        at_once = self.ahead.at_once if self.ahead else len(turn)
        parameters = np.frombuffer(order.parameters, "<f4").astype(np.float32)
        begun = Turn(order.task, order.round, order.attempt, parameters)
        if self.ahead:
            self.ahead.conspire(begun, sites, order.clip)
        for start in range(0, len(turn), at_once):
            some = turn[start : start + at_once]
            if self.ahead and (working := [site for site in some if fates[site].works]):
                self.ahead.compute(begun, working)
            for site in some:
                yield site, self._answer(site, _frame(frames, site), fates[site]), fates[site].heard

    def _answer(self, site: int, frame: bytes, fate: Fate) -> bytes | None:
        if not fate.works:
            return None
        answer = self.agents.die(site, frame, fate.crash) if fate.crash else self.agents.handle(site, frame)
        return answer if fate.end == "answered" else None

    def _said(
        self, order: AnyOrder, frames: Frames, sites: Sequence[int], limit: float
    ) -> Iterator[tuple[int, bytes | None, float]]:
        """As `_worked`, of orders that take no time: a site answers when it has done what it was asked before."""
        now = self.course.clock.now()
        moments = {site: self.course.free(site) for site in sites if self.course.up(site)}
        yield from ((site, None, now) for site in sites if site not in moments)
        for site in sorted(moments, key=lambda each: (moments[each], each)):
            if moments[site] > max(now, limit):
                yield site, None, math.inf
            else:
                answer = self.agents.handle(site, _frame(frames, site))
                yield site, answer, math.inf if self._lost(site, order) else moments[site]

    def _lost(self, site: int, order: AnyOrder) -> bool:
        """Whether the answer to a later stage of pairwise masks is lost."""
        if not isinstance(order, PairDealOrder | MaskOrder | AgreeOrder | RevealOrder):
            return False
        place = (order.task, order.round, order.attempt)
        return self.course.lost_at(site, place, STAGES.index(type(order)), len(STAGES))


def order_in(frame: bytes) -> AnyOrder:
    """The order inside a frame that this process sealed itself."""
    order: AnyOrder = unpack(AnyOrder, unpack(Envelope, frame, LIMIT).body, LIMIT)  # type: ignore[arg-type]  # a union
    return order


def _frame(frames: Frames, site: int) -> bytes:
    return frames[site] if isinstance(frames, Mapping) else frames

"""How each mode writes an update into a report: what honest reports say in model units, and a lie as integers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from client.site_level import bounded, turned
from common.privacy.clipped import Clipped, PrivateUpdate
from common.privacy.units import Unit
from common.secagg.codec import IntegerCodec, RangeCodec, Sum
from common.secagg.distributed import DistributedCodec
from common.secagg.lanes import framed
from common.secagg.masks import lower
from common.work import Work
from server.strategies.strategy import Flat64
from simulations.engines.engine import Turn
from simulations.engines.overheard import Value

FARTHEST = 1e30  # of a coordinate of a lie: beyond it nothing but a full lane is left anyway


@dataclass(frozen=True)
class Form:
    """One round's reports. clip: in force, where it adapts.

    What a site that lies can do in which mode, and does here:

    none, M1  its lanes are integers of the ring; it writes any of them, not only those within the job's bound, beside
              its true weight. A coordinator opens no sum of k reports in which a coordinate stands for more than k
              times the bound (`E_SUM_CHECK`). In M1 it adds no noise and trains without any
    M2        the same with its sum of gradients: neither clipped nor noised, of any length that lanes hold; the lanes
              of loss and accuracy stay true. The noise of the sum lacks its share: that is what `colluding` counts on
    M3 to M5  the same with its update over the clip. It adds no noise in M4; in M3 and M5 the coordinator's is whole.
              The lane of an adaptive clip stays true. In a ring of few bits lanes wrap, and no sum is refused
    A NaN has no integer: who sends one has sent nothing (`UPDATE_INVALID`). Infinity is the fullest lane.
    """

    work: Work
    clip: float = 0.0

    @cached_property
    def by_site(self) -> bool:
        """Whether a whole site is what the job protects."""
        return self.work.training.unit is Unit.SITE

    def weight(self, site: int) -> float:
        """What a report's lanes hold for one model unit, before they are scaled to integers; of M2 it is negative."""
        if self.by_site:
            return 1.0 / (self.clip or self.work.training.clip)
        nominal = self.work.roster.site(site).nominal_records
        if isinstance(codec := self._codec, RangeCodec):
            return min(nominal, codec.weight_cap) / codec.weight_cap
        batch = (self.work.job.privacy.sampling_rate or 1.0) * nominal
        return -batch / self.work.job.training.learning_rate

    @cached_property
    def scale(self) -> float:
        """Integers for one unit of a lane."""
        codec = self._codec
        return codec.steps / codec.bound if isinstance(codec, RangeCodec) else self.work.training.scale

    @cached_property
    def most(self) -> float:
        """What a lane may hold for each report of a sum before the sum is refused; infinite where lanes wrap."""
        codec = self._codec
        if isinstance(codec, RangeCodec):
            return codec.bound
        return codec.limit / self.scale if isinstance(codec, IntegerCodec) else np.inf

    def honest(self, value: Value, site: int) -> Flat64 | None:
        """What the site's report says, in model units, without the noise that it gets at last; None of no report."""
        found = self.own(value, site)
        if self.by_site:
            usable = np.zeros(self.work.layout.size) if found is None else found
            return bounded(usable, self.work.training, self.clip).total[: usable.size] / self.weight(site)
        if found is None or not np.isfinite(found).all():
            return None
        bound = self._codec.bound if isinstance(self._codec, RangeCodec) else np.inf
        return found.clip(-bound, bound)

    def own(self, value: Value, site: int) -> Flat64 | None:
        """What the site has computed, in model units, before any clip of the whole; None where training diverged."""
        if isinstance(value, Clipped):
            return value.total[: self.work.layout.size] / self.weight(site)
        return value.value if isinstance(value, PrivateUpdate) else value

    def integers(self, lie: Flat64, site: int, value: Value, turn: Turn) -> NDArray[np.int64] | None:
        """The lanes that say `lie`, float64 [d] in model units; None where it cannot be written.

        value  what the site has computed, for the lanes beside the update
        """
        if np.isnan(lie).any():
            return None
        plan = self.work.training
        lanes = lie.clip(-FARTHEST, FARTHEST) * self.weight(site)
        if isinstance(value, Clipped):
            lanes = np.append(lanes, value.total[lie.size :])
        elif plan.adaptive and isinstance(value, np.ndarray | PrivateUpdate):
            change = value.value if isinstance(value, PrivateUpdate) else value
            lanes = np.append(lanes, bounded(change, plan, self.clip).total[lie.size :])
        lanes = turned(Clipped(lanes, plan.record_bound), plan, self.work.turn(turn.round)).total
        fullest = float((1 << (self._codec.ring.bits - 1)) - 1)
        whole: NDArray[np.int64] = np.rint((lanes * self.scale).clip(-fullest, fullest)).astype(np.int64)
        return whole

    def added(self, site: int, integers: NDArray[np.int64]) -> Sum:
        """A report of these integers, as what it adds to an opened sum."""
        codec = self._codec
        extras = [round(self.weight(site) * codec.steps)] if isinstance(codec, RangeCodec) else []
        return Sum(1, integers, np.array(extras, np.int64))

    def opened(self, total: Sum) -> Sum:
        """`total` as a coordinator opens it, mod 2^b. Errors: Refusal E_SUM_CHECK for what no honest sum can be."""
        codec = self._codec
        lanes = framed(codec.ring, total.values.size, total.extras).lanes
        lanes[: total.values.size] = lower(codec.ring, total.values)
        lanes[total.values.size] = total.count
        return codec.open_sum(lanes, total.count)

    @cached_property
    def _codec(self) -> RangeCodec | IntegerCodec | DistributedCodec:
        return self.work.codec("train")

"""The reference: one site after another, by the very code of a site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from client.bench import workbench
from client.craft import OwnCraft, unpaid
from client.evaluation import counts
from common.data import Records
from common.errors import Code, Refusal
from common.privacy.clipped import Clipped, PrivateUpdate
from common.privacy.mechanism import MechanismPlan
from common.work import Work, count_shape
from simulations.engines.engine import Share, Turn, share_of
from simulations.ground import Ground


class LoopEngine:
    """`Engine` without any shortcut: right for every job, and what the others are compared with.

    bench  the job's model, and what it is trained with      device  that it lies on, as in site.toml
    train  what a site trains on by id, if not on what the ground gives it
    """

    def __init__(self, work: Work, ground: Ground, device: str = "cpu", train: Callable[[int], Records] | None = None):
        self._work, self._ground, self._craft = work, ground, OwnCraft()
        self._train = train or ground.train
        self.bench = workbench(work.job, ground.nominal(1), device)

    @property
    def told(self) -> dict[str, str]:
        """See `Engine`."""
        return {"engine": "loop", "kernel": "loop"}

    def updates(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """See `Engine`."""
        for site in sites:
            self.bench.load(turn.parameters)
            given = self._ground.assignment(site, turn.task, turn.place)
            yield site, self._craft.plainly(self.bench, self.bench.seen(self._train(site)), given)

    def share(self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64], clip: float) -> Share:
        """See `Engine`."""
        return share_of((update for _, update in self.updates(turn, sites)), weights, clip, turn.parameters.size)

    def gradients(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, Clipped]]:
        """See `Engine`."""
        plan = self._work.training
        for site in sites:
            self.bench.load(turn.parameters)
            given, train = self._ground.assignment(site, turn.task, turn.place), self._train(site)
            yield site, self._craft.gradients(self.bench, self.bench.seen(train), plan, given)

    def privately(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, PrivateUpdate | None]]:
        """See `Engine`."""
        for site in sites:
            self.bench.load(turn.parameters)
            given, train = self._ground.assignment(site, turn.task, turn.place), self._train(site)
            try:
                yield site, self._craft.privately(self.bench, self.bench.seen(train), self._inner, given, unpaid)
            except Refusal as refusal:
                if refusal.code is not Code.UPDATE_INVALID:
                    raise
                yield site, None

    def counts(self, turn: Turn, sites: Sequence[int]) -> NDArray[np.int64]:
        """See `Engine`."""
        self.bench.load(turn.parameters)
        tested = self._ground.tested(sites)
        return counts(self.bench, self.bench.seen(tested), count_shape(self._work.job))

    def close(self) -> None:
        """See `Engine`."""

    @property
    def _inner(self) -> MechanismPlan:
        """The mechanism of local steps: the job's own, or the one inside that of the whole site."""
        return self._work.local or self._work.training

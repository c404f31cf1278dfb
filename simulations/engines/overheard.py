"""An engine whose work of one attempt is looked at before anybody asks for it, and is done only once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from common.orders import Task
from common.privacy.clipped import Clipped, PrivateUpdate
from common.work import Work
from simulations.engines.engine import Engine, Share, Turn, share_of

Value = Clipped | PrivateUpdate | NDArray[np.float64] | None  # as the job's mode has it; None where training diverged


class Overheard:
    """`Engine` that keeps the work of the attempt it was last listened to, of all sites side by side.

    Whoever listens sees exactly what is summed later, also where noise has no seed.
    """

    def __init__(self, work: Work, engine: Engine):
        self._work, self._engine = work, engine
        self._place: tuple[Task, int, int] | None = None
        self._kept: dict[int, Value] = {}

    @property
    def told(self) -> dict[str, str]:
        """See `Engine`."""
        return self._engine.told

    def listen(self, turn: Turn, sites: Sequence[int]) -> Mapping[int, Value]:
        """The work of all these sites by id, in their order: sums of gradients in mode M2, updates in all others."""
        found: Iterator[tuple[int, Value]]
        if self._work.training.mode == "M2":
            found = self._engine.gradients(turn, sites)
        elif self._work.local or self._work.training.mode == "M1":
            found = self._engine.privately(turn, sites)
        else:
            found = self._engine.updates(turn, sites)
        self._place, self._kept = (turn.task, *turn.place), dict(found)
        return self._kept

    def updates(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """See `Engine`."""
        if not self._knows(turn, sites):
            return self._engine.updates(turn, sites)
        return ((site, cast("NDArray[np.float64]", self._kept[site])) for site in sites)

    def share(self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64], clip: float) -> Share:
        """See `Engine`."""
        if not self._knows(turn, sites):
            return self._engine.share(turn, sites, weights, clip)
        return share_of((each for _, each in self.updates(turn, sites)), weights, clip, turn.parameters.size)

    def gradients(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, Clipped]]:
        """See `Engine`."""
        if not self._knows(turn, sites):
            return self._engine.gradients(turn, sites)
        return ((site, cast("Clipped", self._kept[site])) for site in sites)

    def privately(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, PrivateUpdate | None]]:
        """See `Engine`."""
        if not self._knows(turn, sites):
            return self._engine.privately(turn, sites)
        return ((site, cast("PrivateUpdate | None", self._kept[site])) for site in sites)

    def counts(self, turn: Turn, sites: Sequence[int]) -> NDArray[np.int64]:
        """See `Engine`."""
        return self._engine.counts(turn, sites)

    def close(self) -> None:
        """See `Engine`."""
        self._engine.close()

    def _knows(self, turn: Turn, sites: Sequence[int]) -> bool:
        return self._place == (turn.task, *turn.place) and self._kept.keys() >= set(sites)

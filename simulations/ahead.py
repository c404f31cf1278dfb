"""Updates that an engine computes for many sites before their sessions ask for them one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from client.craft import Assignment, Executed, OwnCraft
from client.trainer import Workbench
from common.data import Records
from common.privacy.clipped import Clipped, PrivateUpdate
from common.privacy.mechanism import MechanismPlan
from common.work import Work
from simulations.engines.engine import Engine, Turn

FLOATS_AT_ONCE = 1 << 25  # of updates that wait for their sessions: 256 MiB


class Ahead(OwnCraft):
    """`client.craft.Craft` of all sites of a world: what the engine has for a site, or else what the site computes."""

    def __init__(self, work: Work, engine: Engine):
        self._work, self._engine = work, engine
        self._found: dict[tuple[int, int, int], Clipped | PrivateUpdate | NDArray[np.float64]] = {}

    @property
    def told(self) -> dict[str, str]:
        """The engine and its kernel."""
        return self._engine.told

    @property
    def at_once(self) -> int:
        """Sites whose updates may wait at the same time."""
        return max(1, FLOATS_AT_ONCE // self._work.layout.size)

    def compute(self, turn: Turn, sites: Sequence[int]) -> None:
        """Have the engine compute what these sites will be asked for; what nobody asked for is forgotten."""
        self._found.clear()
        if turn.task != "train":
            return
        if self._work.training.mode == "M2":
            found = self._engine.gradients(turn, sites)
            self._found.update({(site, *turn.place): each for site, each in found})
        elif self._work.local or self._work.training.mode == "M1":
            private = self._engine.privately(turn, sites)
            self._found.update({(site, *turn.place): each for site, each in private if each is not None})
        else:
            self._found.update({(site, *turn.place): each for site, each in self._engine.updates(turn, sites)})

    def gradients(self, bench: Workbench, train: Records, plan: MechanismPlan, given: Assignment) -> Clipped:
        """See `Craft`."""
        found = self._of(given)
        return found if isinstance(found, Clipped) else super().gradients(bench, train, plan, given)

    def privately(
        self, bench: Workbench, train: Records, plan: MechanismPlan, given: Assignment, executed: Executed
    ) -> PrivateUpdate:
        """See `Craft`. Of steps that were computed ahead the ledger hears all at once: no real site is charged."""
        found = self._of(given)
        if not isinstance(found, PrivateUpdate):
            return super().privately(bench, train, plan, given, executed)
        for step in range(found.steps):
            executed(step)
        return found

    def plainly(self, bench: Workbench, train: Records, given: Assignment) -> NDArray[np.float64]:
        """See `Craft`."""
        found = self._of(given)
        return found if isinstance(found, np.ndarray) else super().plainly(bench, train, given)

    def _of(self, given: Assignment) -> Clipped | PrivateUpdate | NDArray[np.float64] | None:
        return self._found.pop((given.site, given.round, given.attempt), None)

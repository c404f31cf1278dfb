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
from common.secagg.codec import Encoded
from common.secagg.masks import lower
from common.work import Work
from simulations.adversaries.band import Band
from simulations.engines.engine import Engine, Turn

FLOATS_AT_ONCE = 1 << 25  # of updates that wait for their sessions: 256 MiB


class Ahead(OwnCraft):
    """`client.craft.Craft` of all sites of a world: what the engine has for a site, or else what the site computes.

    band  the sites that lie, if some do: their sessions charge and sign as all others do, and send something else
    """

    def __init__(self, work: Work, engine: Engine, band: Band | None = None):
        self._work, self._engine, self._band = work, engine, band
        self._found: dict[tuple[int, int, int], Clipped | PrivateUpdate | NDArray[np.float64]] = {}

    @property
    def told(self) -> dict[str, str]:
        """The engine and its kernel."""
        return self._engine.told

    @property
    def at_once(self) -> int:
        """Sites whose updates may wait at the same time."""
        return max(1, FLOATS_AT_ONCE // self._work.layout.size)

    def conspire(self, turn: Turn, asked: Sequence[int], clip: float) -> None:
        """Have the sites that lie agree on what they send, before any of an attempt is asked."""
        if self._band:
            self._band.conspire(turn, asked, clip)

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

    def sent(self, encoded: Encoded, given: Assignment) -> Encoded:
        """See `Craft`: of a site that lies its lie. Errors: Refusal UPDATE_INVALID where it has none to send."""
        if given.task != "train" or not self._band or not self._band.lies(given.site, (given.round, given.attempt)):
            return encoded
        integers = self._band.sent(given.site)
        encoded.lanes[: integers.size] = lower(encoded.ring, integers)
        return encoded

    def _of(self, given: Assignment) -> Clipped | PrivateUpdate | NDArray[np.float64] | None:
        return self._found.pop((given.site, given.round, given.attempt), None)

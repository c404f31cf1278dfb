"""An engine of a world in which some sites train on other records than the ground gives them, from a round on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.privacy.clipped import Clipped, PrivateUpdate
from simulations.engines.engine import Engine, Share, Turn

T = TypeVar("T")
Each = Callable[[Turn, Sequence[int]], Iterator[tuple[int, T]]]


@dataclass(frozen=True)
class Spoiled:
    """`Engine` that has the work of some sites done by `other` from a round on, and all else by `engine`.

    sites  whose records are spoiled      since  the first round in which they are
    Counts are of held-out records, which nobody has spoiled.
    """

    engine: Engine
    other: Engine
    sites: Collection[int]
    since: int

    @property
    def told(self) -> dict[str, str]:
        """See `Engine`."""
        return dict(self.engine.told)

    def updates(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """See `Engine`."""
        return self._parted(self.engine.updates, self.other.updates, turn, sites)

    def share(self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64], clip: float) -> Share:
        """See `Engine`."""
        spoiled = np.array([self._spoils(turn, site) for site in sites], bool)
        norms, total = np.zeros(len(sites)), np.zeros(turn.parameters.size)
        for engine, chosen in ((self.engine, ~spoiled), (self.other, spoiled)):
            if chosen.any():
                some = [site for site, one in zip(sites, chosen, strict=True) if one]
                found = engine.share(turn, some, weights[chosen], clip)
                norms[chosen], total = found.norms, total + found.sum
        return Share(total, norms)

    def gradients(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, Clipped]]:
        """See `Engine`."""
        return self._parted(self.engine.gradients, self.other.gradients, turn, sites)

    def privately(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, PrivateUpdate | None]]:
        """See `Engine`."""
        return self._parted(self.engine.privately, self.other.privately, turn, sites)

    def counts(self, turn: Turn, sites: Sequence[int]) -> NDArray[np.int64]:
        """See `Engine`."""
        return self.engine.counts(turn, sites)

    def close(self) -> None:
        """See `Engine`."""
        self.engine.close()
        self.other.close()

    def _spoils(self, turn: Turn, site: int) -> bool:
        return turn.round >= self.since and site in self.sites

    def _parted(self, clean: Each[T], spoiled: Each[T], turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, T]]:
        """The work of these sites in their order, each by its own engine."""
        ours = [site for site in sites if not self._spoils(turn, site)]
        theirs = [site for site in sites if self._spoils(turn, site)]
        sources = {False: clean(turn, ours) if ours else iter(()), True: spoiled(turn, theirs) if theirs else iter(())}
        for site in sites:
            yield next(sources[self._spoils(turn, site)])

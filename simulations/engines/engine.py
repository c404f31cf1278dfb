"""What an engine computes for a world: one attempt's updates of many sites, or only their sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from common.orders import Task
from common.parameters import Flat
from common.privacy.clipped import Clipped, PrivateUpdate


@dataclass(frozen=True, eq=False)
class Turn:
    """One attempt of a round: its place in the run, and the model that sites begin from, float32 [d]."""

    task: Task
    round: int
    attempt: int
    parameters: Flat

    @property
    def place(self) -> tuple[int, int]:
        """Round and attempt."""
        return self.round, self.attempt


@dataclass(frozen=True, repr=False, eq=False)
class Share:
    """A sum over sites of weight * update, and how long each update was. Not private yet: never sent.

    sum    float64 [d]; an update longer than the clip is shortened to it, one that is not finite adds nothing
    norms  float64 [n], L2, before clipping, in the order of sites; infinite where the update is not finite
    """

    sum: NDArray[np.float64]
    norms: NDArray[np.float64]


class Engine(Protocol):
    """How the updates of a round come about. Sites are named by id; each answer is that of `client.craft.OwnCraft`."""

    @property
    def told(self) -> dict[str, str]:
        """The engine and its kernel as a run's record names them."""

    def updates(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The update of each site without noise, float64 [d], in the order of `sites`."""

    def share(self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64], clip: float) -> Share:
        """The weighted sum of updates without noise, each clipped to L2 norm `clip`; infinite: not clipped."""

    def gradients(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, Clipped]]:
        """Mode M2: each site's clipped sum over a Poisson sample."""

    def privately(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, PrivateUpdate | None]]:
        """Each site's update by local steps with noise for single records; None where its training diverged."""

    def counts(self, turn: Turn, sites: Sequence[int]) -> NDArray[np.int64]:
        """The counts of the held-out records of these sites together, as lanes."""

    def close(self) -> None:
        """End what the engine has started."""


def share_of(updates: Iterable[NDArray[np.float64]], weights: NDArray[np.float64], clip: float, size: int) -> Share:
    """The share of updates that come one after another, float64 [size] each. clip: L2 norm; infinite: not clipped."""
    whole, norms = np.zeros(size), np.zeros(len(weights))
    for place, update in enumerate(updates):
        norms[place] = norm = np.linalg.norm(update) if np.isfinite(update).all() else np.inf
        if np.isfinite(norm):
            whole += weights[place] * min(1.0, clip / norm if norm else 1.0) * update
    return Share(whole, norms)

"""Many sites taught together by the fastest kernel that is right; the rest one after another, as in the loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from client.craft import batch_draws
from common.learning.batches import batches
from common.privacy.clipped import Clipped, PrivateUpdate
from common.work import Work
from simulations.engines.engine import Share, Turn
from simulations.engines.loop import LoopEngine
from simulations.ground import Ground
from simulations.kernels.choice import KINDS, Choice, choose
from simulations.kernels.kernel import Course, Kernel, Lesson

FLOATS_AT_ONCE = 1 << 24  # of updates that lie side by side: 64 MiB
UNBOUNDED = 1e300  # a clip that shortens no update, for the norms


class Crew:
    """`Engine` of one process and one thread. The kernel is chosen at the first round, by its first sites.

    device  that sites are taught on, as in site.toml
    """

    def __init__(self, work: Work, ground: Ground, device: str = "cpu"):
        self._work, self._ground = work, ground
        self._loop = LoopEngine(work, ground, device)
        bench = self._loop.bench
        self._course = Course(bench.model, bench.task, bench.plan)
        self._inputs = bench.seen(ground.pool).inputs
        self._choice: Choice | None = None

    @property
    def told(self) -> dict[str, str]:
        """See `Engine`."""
        return {"engine": "process", "kernel": str(self._choice) if self._choice else "loop"}

    def updates(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """See `Engine`."""
        at_once = max(1, FLOATS_AT_ONCE // turn.parameters.size)
        for start in range(0, len(sites), at_once):
            some = sites[start : start + at_once]
            lessons = self._lessons(turn, some, np.ones(len(some)))
            rows = self.kernel(turn, some).updates(turn.parameters, lessons)
            yield from zip(some, rows.astype(np.float64), strict=True)

    def share(self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64], clip: float) -> Share:
        """See `Engine`."""
        kernel = self.kernel(turn, sites)
        found = kernel.total(turn.parameters, self._lessons(turn, sites, weights), min(clip, UNBOUNDED))
        norms = np.full(len(sites), np.inf) if found.norms is None else found.norms
        return Share(found.sum, norms)

    def gradients(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, Clipped]]:
        """See `Engine`."""
        return self._loop.gradients(turn, sites)

    def privately(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, PrivateUpdate | None]]:
        """See `Engine`."""
        return self._loop.privately(turn, sites)

    def counts(self, turn: Turn, sites: Sequence[int]) -> NDArray[np.int64]:
        """See `Engine`."""
        return self._loop.counts(turn, sites)

    def close(self) -> None:
        """See `Engine`."""

    def kernel(self, turn: Turn, sites: Sequence[int]) -> Kernel:
        """The kernel of the run, chosen by these sites if none is yet."""
        if self._choice is None:
            self._choice = choose(self._course, turn.parameters, self._lessons(turn, sites, np.ones(len(sites))))
        return self._choice.kernel

    @property
    def taught_by(self) -> str:
        """The name of the run's kernel; nothing where none is chosen yet."""
        return self._choice.kernel.name if self._choice else ""

    def take(self, name: str) -> None:
        """Have the kernel `name` teach the run from now on: another crew of the same world has chosen it."""
        if self._choice is None:
            self._choice = Choice(KINDS[name].make(self._course))

    def _lessons(self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64]) -> Iterator[Lesson]:
        plan, seed = self._course.plan, self._work.job.seed
        for site, weight in zip(sites, weights.tolist(), strict=True):
            rows = self._ground.rows(site)[0]
            taken = batches(len(rows), plan.batch, plan.local_steps, batch_draws(seed, site, turn.place))
            at = torch.from_numpy(rows)
            yield Lesson(self._inputs[at], self._ground.pool.labels[at], taken, weight)

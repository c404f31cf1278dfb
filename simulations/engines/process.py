"""The crew on every core: so many processes of one thread, with the model and their sums in shared memory."""

from __future__ import annotations

import mmap
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.orders import Task
from common.privacy.clipped import Clipped, PrivateUpdate
from common.work import Work
from simulations.engines.crew import Crew
from simulations.engines.engine import Engine, Share, Turn
from simulations.ground import Ground

MOST_WORKERS = 64
LAST_SECONDS = 2.0  # that a worker has to end by itself


def process_engine(work: Work, ground: Ground, workers: int | None = None) -> Engine:
    """The crew in `workers` processes, as many as this process may use cores if not given; in this one for one.

    Errors: Refusal CONFIG_INVALID.
    """
    count = len(os.sched_getaffinity(0)) if workers is None else workers
    if not 1 <= count <= MOST_WORKERS:
        why = f"it must lie between 1 and {MOST_WORKERS}"
        raise Refusal(Code.CONFIG_INVALID, f"workers = {count}", why, "Correct it")
    crew = Crew(work, ground)
    if count == 1 or "fork" not in multiprocessing.get_all_start_methods():
        return crew
    return ProcessEngine(crew, work.layout.size, count)


class _Memory:
    """What all processes see: the round's model, and the sum of each worker."""

    def __init__(self, size: int, workers: int):
        self.model = np.frombuffer(mmap.mmap(-1, 4 * size), np.float32)
        self.sums = np.frombuffer(mmap.mmap(-1, 8 * size * workers), np.float64).reshape(workers, size)


class _Asked(NamedTuple):
    """What a worker is to compute. place: task, round, attempt; extra: further arguments of the method."""

    method: str
    place: tuple[Task, int, int]
    sites: Sequence[int]
    extra: tuple[Any, ...] = ()


class _Worker(NamedTuple):
    process: BaseProcess
    line: Connection


class ProcessEngine:
    """`Engine` over forked workers. Worker w takes the sites w, w + N, …, so equal settings give equal sums.

    They are forked when they are first needed, with all that the crew has learned by then.
    """

    def __init__(self, crew: Crew, size: int, workers: int):
        self._crew, self._memory, self._count = crew, _Memory(size, workers), workers
        self._workers: list[_Worker] = []

    @property
    def told(self) -> dict[str, str]:
        """See `Engine`."""
        return {**self._crew.told, "workers": str(self._count)}

    def updates(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """See `Engine`."""
        self._crew.kernel(turn, sites)
        return self._each("updates", turn, sites)

    def share(self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64], clip: float) -> Share:
        """See `Engine`."""
        self._crew.kernel(turn, sites)
        places = range(self._count)
        self._send("share", turn, sites, [(weights[place :: self._count], clip) for place in places])
        norms = np.zeros(len(sites))
        for place, worker in enumerate(self._workers):
            norms[place :: self._count] = self._heard(worker)
        return Share(self._memory.sums.sum(axis=0), norms)

    def gradients(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, Clipped]]:
        """See `Engine`."""
        return self._each("gradients", turn, sites)

    def privately(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, PrivateUpdate | None]]:
        """See `Engine`."""
        return self._each("privately", turn, sites)

    def counts(self, turn: Turn, sites: Sequence[int]) -> NDArray[np.int64]:
        """See `Engine`."""
        self._send("counts", turn, sites, [()] * self._count)
        found: NDArray[np.int64] = np.sum([self._heard(worker) for worker in self._workers], axis=0)
        return found

    def close(self) -> None:
        """See `Engine`."""
        workers, self._workers = self._workers, []
        for worker in workers:
            with suppress(OSError):  # it is gone already
                worker.line.send(None)
            worker.line.close()
        for worker in workers:
            worker.process.join(timeout=LAST_SECONDS)
            worker.process.kill()

    def _each(self, method: str, turn: Turn, sites: Sequence[int]) -> Iterator[Any]:
        """What a method yields for each site, in the order of sites. Whoever stops early still hears the rest out."""
        self._send(method, turn, sites, [()] * self._count)
        left = iter(range(len(sites)))
        try:
            for place in left:
                yield self._heard(self._workers[place % self._count])
        finally:
            for place in left if self._workers else ():
                self._heard(self._workers[place % self._count])

    def _send(self, method: str, turn: Turn, sites: Sequence[int], extra: Sequence[tuple[Any, ...]]) -> None:
        self._workers = self._workers or [self._hired(place) for place in range(self._count)]
        self._memory.model[:] = turn.parameters
        for place, worker in enumerate(self._workers):
            asked = _Asked(method, (turn.task, turn.round, turn.attempt), sites[place :: self._count], extra[place])
            try:
                worker.line.send(asked)
            except OSError:
                self.close()
                raise _ended() from None

    def _heard(self, worker: _Worker) -> Any:
        """The next word of a worker. Errors: the Refusal that it met; PROCESS_FAILED if it is gone; then all end."""
        try:
            found = worker.line.recv()
        except (EOFError, OSError):
            self.close()
            raise _ended() from None
        if isinstance(found, tuple) and found and isinstance(found[0], Code):
            self.close()
            raise Refusal(*found)
        return found

    def _hired(self, place: int) -> _Worker:
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(self._crew, self._memory, place, there), daemon=True)
        process.start()
        there.close()
        return _Worker(process, here)


def _work(crew: Crew, memory: _Memory, place: int, line: Connection) -> None:
    """The life of a worker: it ends when its line does."""
    torch.set_num_threads(1)
    while True:
        try:
            asked: _Asked | None = line.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        if asked is None:
            return
        task, number, attempt = asked.place
        turn = Turn(task, number, attempt, memory.model)
        try:
            _answer(crew, memory.sums[place], asked, turn, line)
        except Refusal as refusal:
            line.send((refusal.code, refusal.what, refusal.why, refusal.do))
        except (OSError, KeyboardInterrupt):
            return


def _answer(crew: Crew, total: NDArray[np.float64], asked: _Asked, turn: Turn, line: Connection) -> None:
    if asked.method == "share":
        share = crew.share(turn, asked.sites, *asked.extra)
        total[:] = share.sum
        line.send(share.norms)
    elif asked.method == "counts":
        line.send(crew.counts(turn, asked.sites))
    else:
        for each in getattr(crew, asked.method)(turn, asked.sites):
            line.send(each)


def _ended() -> Refusal:
    why = "it was killed, or ran out of memory"
    return Refusal(Code.PROCESS_FAILED, "A worker of the simulation ended", why, "Use fewer workers or smaller rounds")

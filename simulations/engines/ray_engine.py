"""The crew on every processor of a Ray cluster, reached through Flower's simulation engine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.frames import pack
from common.privacy.clipped import Clipped, PrivateUpdate
from common.work import Work
from simulations.engines import errands
from simulations.engines.cluster import ClusterSettings, connected
from simulations.engines.crew import FLOATS_AT_ONCE, Crew
from simulations.engines.engine import Share, Turn
from simulations.engines.errands import Answer, Errand, Method
from simulations.flower import Runtime
from simulations.ground import Ground

START_SECONDS = 180.0  # for all workers to import what they need and to read the data
MOST_LOSSES = 3  # in one turn, after which the cluster is given up

T = TypeVar("T")


class RayEngine:
    """`Engine` over the workers of a Ray cluster. Worker w takes the sites w, w + N, …, so equal sets of workers give
    equal sums; N is as many as fit.

    Each worker deals the records of its sites for itself. Only the scenario, the turn and what was computed cross, in
    the clear; the round's model goes out once to every worker, not once for every site.
    A worker that is lost, alone or with its machine, ends nothing: what has no answer is computed again by a new set of
    workers, as many as fit then.
    Errors: besides those of the loop, Refusal PROCESS_FAILED where workers do not start, or are lost again and again;
    CONFIG_INVALID where none fits; DATA_INVALID where a machine has other records than this one.
    """

    def __init__(self, work: Work, ground: Ground, settings: ClusterSettings):
        self._crew, self._size, self._settings = Crew(work, ground), work.layout.size, settings
        if settings.gpus:
            self._crew.take("loop")  # all others are for processors
        self._setting, self._records = errands.setting_of(work, ground), errands.digest_of(ground)
        self._open = ExitStack()
        self._runtime: Runtime | None = None
        self._found = dict[str, str]()

    @property
    def told(self) -> dict[str, str]:
        """See `Engine`."""
        return {**self._crew.told, "engine": "ray", **self._found}

    def updates(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """See `Engine`."""
        self._crew.kernel(turn, sites)
        return self._each("updates", turn, sites, errands.updates_in)

    def share(self, turn: Turn, sites: Sequence[int], weights: NDArray[np.float64], clip: float) -> Share:
        """See `Engine`."""
        self._crew.kernel(turn, sites)
        count = self._workers.seats
        parts = [
            self._errand("share", turn, sites[place::count], weights[place::count], clip)
            for place in range(min(count, len(sites)))
        ]
        total, norms = np.zeros(self._size), np.zeros(len(sites))
        for place, answer in enumerate(self._answers(parts)):
            share = errands.share_in(answer)
            total += share.sum
            norms[place::count] = share.norms
        return Share(total, norms)

    def gradients(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, Clipped]]:
        """See `Engine`."""
        return self._each("gradients", turn, sites, errands.gradients_in)

    def privately(self, turn: Turn, sites: Sequence[int]) -> Iterator[tuple[int, PrivateUpdate | None]]:
        """See `Engine`."""
        return self._each("privately", turn, sites, errands.private_in)

    def counts(self, turn: Turn, sites: Sequence[int]) -> NDArray[np.int64]:
        """See `Engine`."""
        count = min(self._workers.seats, len(sites)) or 1
        parts = [self._errand("counts", turn, sites[place::count]) for place in range(count)]
        found: NDArray[np.int64] = np.sum([errands.counts_in(each) for each in self._answers(parts)], axis=0)
        return found

    def close(self) -> None:
        """See `Engine`."""
        self._runtime = None
        self._open.pop_all().close()

    def _each(
        self, method: Method, turn: Turn, sites: Sequence[int], read: Callable[[Answer, int], list[T]]
    ) -> Iterator[tuple[int, T]]:
        """What a method gives for each site, in the order of sites; no more at once than memory should hold."""
        count = self._workers.seats
        at_once = count * max(1, FLOATS_AT_ONCE // self._size)
        for start in range(0, len(sites), at_once):
            some = sites[start : start + at_once]
            parts = [some[place::count] for place in range(min(count, len(some)))]
            answers = self._answers([self._errand(method, turn, part) for part in parts])
            found = [read(answer, len(part)) for answer, part in zip(answers, parts, strict=True)]
            for place, site in enumerate(some):
                yield site, found[place % count][place // count]

    def _errand(
        self,
        method: Method,
        turn: Turn,
        sites: Sequence[int],
        weights: NDArray[np.float64] | None = None,
        clip: float = 0,
    ) -> bytes:
        return pack(
            Errand(
                setting=self._setting,
                records=self._records,
                method=method,
                kernel=self._crew.taught_by,
                cuda=self._settings.gpus > 0,
                task=turn.task,
                round=turn.round,
                attempt=turn.attempt,
                parameters=np.asarray(turn.parameters, "<f4").tobytes(),
                sites=tuple(map(int, sites)),
                weights=b"" if weights is None else np.asarray(weights, "<f8").tobytes(),
                clip=float(clip),
            )
        )

    def _answers(self, frames: Sequence[bytes]) -> list[Answer]:
        """The answer to each errand, however many workers are lost on the way."""
        found = dict[int, Answer]()
        for _ in range(1 + MOST_LOSSES):
            left = [place for place in range(len(frames)) if place not in found]
            heard = self._workers.ask([frames[place] for place in left])
            found |= {
                place: errands.answer_in(each) for place, each in zip(left, heard, strict=True) if each is not None
            }
            if len(found) == len(frames):
                return [found[place] for place in range(len(frames))]
            self.close()
        why = f"{1 + MOST_LOSSES} times in one turn, by the system for want of memory or with their machine"
        raise Refusal(
            Code.PROCESS_FAILED,
            "Workers on Ray were lost",
            why,
            "Ask for more processors a worker, so that fewer share a machine's memory",
        )

    @property
    def _workers(self) -> Runtime:
        if self._runtime is None:
            self._runtime = self._hired()
        return self._runtime

    def _hired(self) -> Runtime:
        """Workers that have all said that they are ready, as many as fit. Errors: Refusal PROCESS_FAILED."""
        hello = self._errand("hello", Turn("train", 0, 0, np.zeros(0, np.float32)), ())
        end = time.monotonic() + START_SECONDS
        while (left := end - time.monotonic()) > 0:
            with ExitStack() as stack:
                stack.enter_context(connected(self._settings))
                runtime = stack.enter_context(closing(Runtime(self._settings.resources)))
                heard = runtime.ask([hello] * runtime.seats, left)
                said = [errands.answer_in(each) for each in heard if each is not None]
                if len(said) == runtime.seats:
                    self._open = stack.pop_all()
                    self._found = {"workers": str(runtime.seats), "machines": str(len(runtime.machines))}
                    return runtime
        why = f"not all were ready within {START_SECONDS:.0f} s"
        do = "Look whether other work holds the cluster's processors, and at the logs of its machines"
        raise Refusal(Code.PROCESS_FAILED, "Workers on Ray did not start", why, do)

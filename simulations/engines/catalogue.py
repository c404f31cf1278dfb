"""The engines by name."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from common.config import one_of
from common.work import Work
from simulations.engines.engine import Engine
from simulations.engines.loop import LoopEngine
from simulations.engines.process import process_engine
from simulations.ground import Ground


class EngineName(StrEnum):
    """How the sites of a world are computed."""

    PROCESS = "process"
    LOOP = "loop"


@dataclass(frozen=True)
class Hiring:
    """Which engine a world is to have. workers: processes of it, all cores if None."""

    engine: EngineName = EngineName.PROCESS
    workers: int | None = None

    def engine_of(self, work: Work, ground: Ground) -> Engine:
        """A new engine for a job in a world. Errors: Refusal CONFIG_INVALID."""
        if self.engine is EngineName.LOOP:
            return LoopEngine(work, ground)
        return process_engine(work, ground, self.workers)


def named(name: str) -> EngineName:
    """The engine called so. Errors: Refusal CONFIG_INVALID naming the nearest."""
    one_of(name, "engine", list(EngineName))
    return EngineName(name)

"""The engines by name."""

from __future__ import annotations

from enum import StrEnum

from common.work import Work
from simulations.engines.engine import Engine
from simulations.engines.loop import LoopEngine
from simulations.engines.process import process_engine
from simulations.ground import Ground


class EngineName(StrEnum):
    """How the sites of a world are computed."""

    PROCESS = "process"
    LOOP = "loop"


def engine_of(name: EngineName, work: Work, ground: Ground) -> Engine:
    """The engine `name` for a job in a world."""
    return LoopEngine(work, ground) if name is EngineName.LOOP else process_engine(work, ground)

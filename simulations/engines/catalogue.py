"""The engines by name."""

from __future__ import annotations

import os
from enum import StrEnum

from common.work import Work
from simulations.engines.cluster import ClusterSettings, refuse_absent
from simulations.engines.engine import Engine
from simulations.engines.loop import LoopEngine
from simulations.engines.process import process_engine
from simulations.ground import Ground


class EngineName(StrEnum):
    """How the sites of a world are computed."""

    PROCESS = "process"
    LOOP = "loop"
    RAY = "ray"


def engine_of(name: EngineName, work: Work, ground: Ground, cluster: ClusterSettings | None = None) -> Engine:
    """The engine `name` for a job in a world.

    cluster  of the engine ray; what the environment says, if not given
    Errors: Refusal PART_MISSING, CONFIG_INVALID.
    """
    if name is EngineName.RAY:
        refuse_absent()
        from simulations.engines.ray_engine import RayEngine  # Flower and Ray take seconds to import

        return RayEngine(work, ground, cluster or ClusterSettings.of(os.environ))
    return LoopEngine(work, ground) if name is EngineName.LOOP else process_engine(work, ground)

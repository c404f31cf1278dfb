"""One scenario played to its end: its world, its run directory, and the summary that commands print."""

from __future__ import annotations

import tempfile
import time
from enum import StrEnum
from pathlib import Path
from typing import Any

from common.errors import Code, Refusal
from simulations.finish import finish
from simulations.scenario import Scenario
from simulations.world import simulate


class Engine(StrEnum):
    """How the sites of a world are computed."""

    LOOP = "loop"


def engine_of(name: str) -> Engine:
    """The engine called `name`. Errors: Refusal CONFIG_INVALID."""
    if name not in list(Engine):
        raise Refusal(
            Code.CONFIG_INVALID,
            f"--engine {name}",
            "this version simulates by the engine 'loop'",
            "Use --engine loop",
        )
    return Engine(name)


def play(scenario: Scenario, out: Path, *, engine: Engine, workshop: Path | None = None) -> dict[str, Any]:
    """Simulate `scenario`, write its run directory `out`, and return the summary of it.

    engine    how the sites are computed; there is one so far
    workshop  folder for the files of the world, which are gone afterwards; the system's own if left out
    Errors: those of `simulate` and `finish`; then there is no `out`.
    """
    del engine  # every world is computed by the loop
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hushfed-world-", dir=workshop) as folder:
        done = simulate(scenario, Path(folder) / "federation")
        result = finish(scenario, done.work.job, done.federation, done.record, out)
    result["seconds"] = round(time.monotonic() - begun, 1)
    return result

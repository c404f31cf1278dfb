"""One scenario played to its end: its world, its run directory, and the summary that commands print."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from simulations.engines.catalogue import EngineName
from simulations.engines.cluster import ClusterSettings
from simulations.finish import finish
from simulations.scenario import Scenario
from simulations.world import simulate


def play(
    scenario: Scenario,
    out: Path,
    *,
    engine: EngineName,
    cluster: ClusterSettings | None = None,
    workshop: Path | None = None,
) -> dict[str, Any]:
    """Simulate `scenario`, write its run directory `out`, and return the summary of it.

    engine    how the sites are computed      cluster  that of the engine ray, if not the environment's
    workshop  folder for the files of the world, which are gone afterwards; the system's own if left out
    Errors: those of `simulate` and `finish`; then there is no `out`.
    """
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hushfed-world-", dir=workshop) as folder:
        done = simulate(scenario, Path(folder) / "federation", engine, cluster)
        result = finish(scenario, done, out)
    result["seconds"] = round(time.monotonic() - begun, 1)
    if "simulated" in result:  # what it took here, and not what it took there
        result["seconds_per_round"] = round((time.monotonic() - begun) / max(1, result["rounds"]), 3)
    return result

"""Run directories of small worlds whose sums were formed without masks, made once and copied."""

from __future__ import annotations

import shutil
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from simulations.finish import finish
from simulations.world import simulate
from tests.worlds import scenario

FEW: dict[str, Any] = {}
MANY: dict[str, Any] = {
    "world.partition": {"kind": "resampled", "sites": 3000, "records": 40, "minimum": 1},
    "world.faults.dropout": 0.2,
    "job.aggregation.cohort": 20,
    "job.aggregation.quorum": 10,
    "job.privacy.delta": 1e-7,
    "job.privacy.colluding": 1,
}


def exact_run(folder: Path, size: str = "few", mode: str = "M2", noise: str = "system") -> Path:
    """A run of three sites that are told one by one ("few"), or of 3000 that are only counted ("many")."""
    shutil.copytree(_made(size, mode, noise), folder)
    return folder


@lru_cache
def _made(size: str, mode: str, noise: str) -> Path:
    changes = FEW if size == "few" else MANY
    made = scenario(mode, {"world.sums": "exact", "job.privacy.noise": noise, **changes})
    folder = Path(tempfile.mkdtemp(prefix="hushfed-exact-"))
    finish(made, simulate(made, folder / "world"), folder / "run")
    return folder / "run"

"""Small simulated runs that are there to be attacked: digits, with or without canaries, at few sites or at many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import simulations.baselines
from simulations.finish import finish
from simulations.scenario import Scenario, example, read_scenario
from simulations.world import simulate
from tests.worlds import scenario

SMALL = ("job.rounds=8", "job.privacy.epsilon=1.0", "job.privacy.evaluation_epsilon=1.0")
EVERYBODY = "job.privacy.sampling_rate=1.0"  # no chance of sampling between a canary and the noise
CANARIES = "world.canaries.count=200"
SITE = {
    "unit": "site", "epsilon": 1.0, "delta": 1e-4, "clip": 1.0, "spare_rounds": 0, "evaluation_epsilon": 1.0,
    "noise": "system",
}  # fmt: skip
MODES: dict[str, dict[str, Any]] = {"M3": {}, "M4": {"colluding": 0}, "M5": {"separation": 2}}


def attacked(folder: Path, *changes: str, data: str = "digits", private: bool = True) -> Path:
    """The run directory of a world with these settings, under `folder`; `private` sets a small epsilon."""
    return _played(read_scenario(example(data), [*((*SMALL, EVERYBODY) if private else ()), *changes]), folder)


def attacked_sites(folder: Path, mode: str, canaries: int = 0, **privacy: Any) -> Path:
    """The same of a job that protects whole sites: six real ones, and so many canary sites."""
    changes = {
        "job.privacy": {"mode": mode, **SITE, **MODES[mode], **privacy},
        "job.training.local_steps": 4,
        "job.training.learning_rate": 0.5,
        "job.aggregation.strategy": "fedavg",
        "job.aggregation.quorum": max(2, (6 + canaries) // 2 - 2 if mode == "M5" else 4 + canaries),
        "job.rounds": 4 if mode == "M5" else 2,
        "world.partition": {"kind": "even", "sites": 6, "minimum": 20},
        **({"world.canaries": {"count": canaries}} if canaries else {}),
    }
    return _played(scenario("M2", changes, base="digits"), folder)


def _played(scenario: Scenario, folder: Path) -> Path:
    """The whole run; what others would have reached without it is no matter here, and takes long."""
    done = simulate(scenario, folder / "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(simulations.baselines, "STEPS", 1)
        finish(scenario, done, folder / "run")
    return folder / "run"

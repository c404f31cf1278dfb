"""Small simulated runs that are there to be attacked: digits at four sites, with or without canaries."""

from __future__ import annotations

from pathlib import Path

from simulations.finish import finish
from simulations.scenario import example, read_scenario
from simulations.world import simulate

SMALL = ("job.rounds=8", "job.privacy.epsilon=1.0", "job.privacy.evaluation_epsilon=1.0")
EVERYBODY = "job.privacy.sampling_rate=1.0"  # no chance of sampling between a canary and the noise
CANARIES = "world.canaries.count=200"


def attacked(folder: Path, *changes: str, data: str = "digits", private: bool = True) -> Path:
    """The run directory of a world with these settings, under `folder`; `private` sets a small epsilon."""
    scenario = read_scenario(example(data), [*((*SMALL, EVERYBODY) if private else ()), *changes])
    done = simulate(scenario, folder / "world")
    finish(scenario, done, folder / "run")
    return folder / "run"

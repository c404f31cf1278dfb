"""How the cost of a round grows with its sites and with the model: by the kernel that is chosen, beside a bare loop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import cycle, islice
from typing import Any, Literal

import torch
from torch import nn

from common.parameters import flatten
from simulations.bench.peers.networks import CLASSES, SIDE
from simulations.bench.rows import forget_peak, peak_mb
from simulations.bench.simulate_rows import Advance
from simulations.bench.simulate_works import W2, Play, Setting, bare, by_kernel, population
from simulations.kernels.choice import KINDS

SITES = (10, 100, 1_000, 10_000, 100_000)
PARAMETERS = (10**4, 10**5, 10**6, 10**7)
DIFFERENT = 64  # sites with records of their own; of more, several have the same
BARE_SITES = 40  # at most that the bare loop is timed with: it takes each after the other, at one price


@dataclass(frozen=True, kw_only=True)
class ScalingRow:
    """One point of a curve.

    curve        what grows       sites, parameters  of the round
    engine       the kernel       cpu_microseconds_per_site  of the round, divided by its sites
    ratio_floor  to a bare loop over sites of the same kind       peak_mb  most memory of the process meanwhile (MiB)
    """

    curve: Literal["sites", "parameters"]
    sites: int
    parameters: int
    engine: str
    cpu_seconds_per_round: float
    cpu_microseconds_per_site: float
    ratio_floor: float
    peak_mb: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def readable(self) -> dict[str, str]:
        """The row in units that a person reads."""
        return {
            "grows": self.curve,
            "sites": f"{self.sites:,}".replace(",", " "),
            "parameters": f"{self.parameters:,}".replace(",", " "),
            "engine": self.engine,
            "CPU a site": f"{self.cpu_microseconds_per_site:.0f} µs",
            "times bare": f"{self.ratio_floor:.2f}",
            "memory": f"{self.peak_mb:.0f} MB",
        }


def wide(parameters: int) -> nn.Module:
    """784-h-10 with the h that comes nearest to so many parameters."""
    hidden = max(1, round((parameters - CLASSES) / (SIDE * SIDE + 1 + CLASSES)))
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


def points() -> Iterator[tuple[Literal["sites", "parameters"], Setting]]:
    """Rounds of W2's model with more and more sites, and of ten sites with larger and larger models."""
    for sites in SITES:
        yield "sites", replace(W2, cohort=sites, population=min(sites, DIFFERENT))
    for size in PARAMETERS:
        yield "parameters", replace(W2, model=partial(wide, size), cohort=10, population=10)


def measure_scaling(repeats: int, advance: Advance) -> list[ScalingRow]:
    """All points, each the least of `repeats` rounds after a first one, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rows = []
        for curve, setting in points():
            rows.append(_measured(curve, setting, repeats))
            advance(1)
        return rows
    finally:
        torch.set_num_threads(threads)


def _measured(curve: Literal["sites", "parameters"], setting: Setting, repeats: int) -> ScalingRow:
    data, course = population(setting), setting.course()
    kind = next(kind for kind in KINDS.values() if kind.unfit(course) is None)
    forget_peak()
    taken = _least(by_kernel(kind.make(course), setting, data), setting, setting.cohort, repeats)
    peak, few = peak_mb(), min(setting.cohort, BARE_SITES)
    floor = _least(bare(setting, data), setting, few, repeats)
    return ScalingRow(
        curve=curve,
        sites=setting.cohort,
        parameters=course.size,
        engine=kind.name,
        cpu_seconds_per_round=taken,
        cpu_microseconds_per_site=1e6 * taken / setting.cohort,
        ratio_floor=taken / setting.cohort * few / floor,
        peak_mb=peak,
    )


def _least(play: Play, setting: Setting, sites: int, repeats: int) -> float:
    """CPU seconds of a round of so many sites; larger rounds are played once, for they vary less."""
    parameters, chosen = flatten(setting.course().model), list(islice(cycle(range(setting.population)), sites))
    play(parameters, chosen[:DIFFERENT])
    found = []
    for _ in range(repeats if sites <= SITES[2] else 1):
        begun = time.process_time()
        play(parameters, chosen)
        found.append(time.process_time() - begun)
    return min(found)

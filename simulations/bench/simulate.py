"""What a simulated round costs by each kernel, beside a bare loop over the same sites in the same process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from common.errors import Code, Refusal
from common.parameters import Flat, flatten
from simulations.bench.rows import forget_peak, peak_mb
from simulations.bench.simulate_private import PRIVATE, privately
from simulations.bench.simulate_works import NOISE, WORKS, Play, Population, Setting, bare, by_kernel, population
from simulations.kernels.choice import KINDS

BARE = "bare-loop"
AGREEMENT = 1e-4  # of what a round changes, median over rounds: rounding takes the other side of a kink at some sites
Advance = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class SimulationRow:
    """One engine on one kind of round.

    cpu_seconds_per_round  the least of all rounds but the first    ratio_floor  to that of the bare loop
    ratio_median           median over rounds of the ratio to the bare loop's same round
    updates_per_second     sites taught in a CPU second
    peak_mb                most memory of a process of its own that plays two rounds, data included (MiB)
    first_round_seconds    CPU seconds of that process until its first round was over, imports included, data not
    """

    work: str
    engine: str
    cpu_seconds_per_round: float
    ratio_floor: float
    ratio_median: float
    updates_per_second: float
    peak_mb: float | None
    first_round_seconds: float | None
    repeats: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def readable(self) -> dict[str, str]:
        """The row in units that a person reads."""
        shown = {
            "work": self.work,
            "engine": self.engine,
            "CPU a round": f"{1e3 * self.cpu_seconds_per_round:.0f} ms",
            "times bare": f"{self.ratio_floor:.2f}",
            "sites a second": f"{self.updates_per_second:.0f}",
        }
        if self.peak_mb is not None:
            shown |= {"memory": f"{self.peak_mb:.0f} MB", "first round": f"{self.first_round_seconds:.1f} s"}
        return shown


def engines_of(setting: Setting) -> list[str]:
    """The bare loop and all kernels that are right for the course, or the engines that clip single records."""
    if setting.local:
        return [BARE, *PRIVATE]
    course = setting.course()
    return [BARE, *(name for name, kind in KINDS.items() if kind.unfit(course) is None)]


def measure(work: str, engines: Sequence[str], repeats: int, advance: Advance, *, apart: bool) -> list[SimulationRow]:
    """Rows of the rounds `work` for the bare loop and each of `engines`, on one thread.

    Rounds are interleaved: each is played by every engine in turn, so that load from elsewhere falls on all alike.
    apart  also measure memory and first rounds, in processes of their own
    Errors: Refusal INTERNAL if an engine changes the model otherwise than the bare loop: it did other work.
    """
    setting = WORKS[work]
    order = (BARE, *(each for each in engines if each != BARE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        data = population(setting)
        taken = _taken(setting, {each: _play(each, setting, data) for each in order}, repeats, advance)
    finally:
        torch.set_num_threads(threads)
    rows = []
    for each in order:
        alone = _alone(work, each) if apart else {}
        rows.append(
            SimulationRow(
                work=work,
                engine=each,
                cpu_seconds_per_round=min(taken[each]),
                ratio_floor=min(taken[each]) / min(taken[BARE]),
                ratio_median=median(mine / floor for mine, floor in zip(taken[each], taken[BARE], strict=True)),
                updates_per_second=setting.cohort / min(taken[each]),
                peak_mb=alone.get("peak_mb"),
                first_round_seconds=alone.get("first_round_seconds"),
                repeats=repeats,
            )
        )
        advance(1)
    return rows


def _play(engine: str, setting: Setting, data: Population) -> Play:
    if engine == BARE:
        return bare(setting, data)
    if setting.local:
        return privately(PRIVATE[engine](), setting, data)
    return by_kernel(KINDS[engine].make(setting.course()), setting, data)


def _taken(setting: Setting, plays: Mapping[str, Play], repeats: int, advance: Advance) -> dict[str, list[float]]:
    """CPU seconds of each round but the first, by engine; all play a round from the same parameters."""
    taken: dict[str, list[float]] = {name: [] for name in plays}
    away: dict[str, list[float]] = {name: [] for name in plays}
    parameters = flatten(setting.course().model)
    for number in range(repeats + 1):
        ends = {}
        for name, play in plays.items():
            begun = time.process_time()
            ends[name] = _next(setting, play, parameters, number)
            taken[name].append(time.process_time() - begun)
        for name, end in ends.items():
            change = ends[BARE] - parameters
            away[name].append(float(np.linalg.norm(end - ends[BARE]) / np.linalg.norm(change)))
        parameters = ends[BARE]
        advance(1)
    for name, distances in (away if not setting.local else {}).items():
        _refuse_other_work(name, median(distances))
    return {name: times[1:] for name, times in taken.items()}


def _next(setting: Setting, play: Play, parameters: Flat, number: int) -> Flat:
    """The parameters after round `number`: the mean update, of clipped ones with noise."""
    whole = play(parameters, setting.chosen(number))
    if setting.clip is not None:
        draws = np.random.default_rng(number)  # the same for all engines: they are compared
        whole = whole + NOISE * setting.clip * draws.standard_normal(whole.size, dtype=np.float32)
    found: Flat = (parameters + whole / setting.cohort).astype(np.float32)
    return found


def _refuse_other_work(name: str, away: float) -> None:
    if not away <= AGREEMENT:
        why = f"it changes the model otherwise than the bare loop, by {away:.1g} of the change"
        raise Refusal(Code.INTERNAL, f"{name} not measured", why, "Report this: the kernel does other work")


def _alone(work: str, engine: str) -> dict[str, float]:
    """`alone` in a process of its own. Errors: Refusal PROCESS_FAILED."""
    done = subprocess.run(
        [sys.executable, "-m", "simulations.bench.simulate", json.dumps([work, engine])],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Refusal(Code.PROCESS_FAILED, f"Memory of {engine} not measured", told, "Measure without processes")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def alone(work: str, engine: str) -> dict[str, float]:
    """Two rounds in this process, which has done nothing else: its CPU seconds until after the first, and its peak."""
    torch.set_num_threads(1)
    setting, begun = WORKS[work], time.process_time()
    data = population(setting)
    made = time.process_time() - begun
    forget_peak()
    play = _play(engine, setting, data)
    parameters = _next(setting, play, flatten(setting.course().model), 0)
    first = time.process_time() - made
    _next(setting, play, parameters, 1)
    return {"peak_mb": peak_mb(), "first_round_seconds": first}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(alone(*json.loads(sys.argv[1]))) + "\n")

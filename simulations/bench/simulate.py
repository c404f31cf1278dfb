"""What a simulated round costs by each kernel, beside a bare loop over the same sites in the same process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch

from common.errors import Code, Refusal
from common.parameters import flatten
from simulations.bench.rows import forget_peak, peak_mb
from simulations.bench.simulate_private import PRIVATE, privately
from simulations.bench.simulate_rows import BARE, Advance, SimulationRow
from simulations.bench.simulate_works import WORKS, Play, Population, Setting, bare, by_kernel, following, population
from simulations.kernels.choice import KINDS

AGREEMENT = 1e-4  # of what a round changes, median over rounds: rounding takes the other side of a kink at some sites


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
            ends[name] = following(setting, play, parameters, number)
            taken[name].append(time.process_time() - begun)
        for name, end in ends.items():
            change = ends[BARE] - parameters
            away[name].append(float(np.linalg.norm(end - ends[BARE]) / np.linalg.norm(change)))
        parameters = ends[BARE]
        advance(1)
    for name, distances in (away if not setting.local else {}).items():
        _refuse_other_work(name, median(distances))
    return {name: times[1:] for name, times in taken.items()}


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
    parameters = following(setting, play, flatten(setting.course().model), 0)
    first = time.process_time() - made
    following(setting, play, parameters, 1)
    return {"peak_mb": peak_mb(), "first_round_seconds": first}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(alone(*json.loads(sys.argv[1]))) + "\n")

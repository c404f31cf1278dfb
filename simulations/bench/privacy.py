"""What a private step costs beside a plain one: paired and interleaved CPU time, memory in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch

from common.errors import Code, Refusal
from simulations.bench.privacy_models import SUBJECTS
from simulations.bench.privacy_steps import OWN, SMALL, Step, make, picked
from simulations.bench.rows import forget_peak, peak_mb

Advance = Callable[..., None]


@dataclass(frozen=True, kw_only=True)
class PrivacyRow:
    """One engine on one model.

    cpu_seconds    of a step, median      ratio  to a plain step of the same repetition, median
    ratio_low, ratio_high  its quartiles
    memory_mb      most that the process grew while stepping, above what it held after a step with two records
    memory_ratio   to that of plain steps
    records        of a micro-batch; None: the whole batch, or what the engine takes by itself
    """

    model: str
    engine: str
    cpu_seconds: float
    ratio: float
    ratio_low: float
    ratio_high: float
    memory_mb: float | None
    memory_ratio: float | None
    records: int | None
    repeats: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def readable(self) -> dict[str, str]:
        """The row in units that a person reads."""
        shown = {
            "model": self.model,
            "engine": self.engine,
            "CPU": f"{1e3 * self.cpu_seconds:.1f} ms",
            "times plain": f"{self.ratio:.2f} [{self.ratio_low:.2f}-{self.ratio_high:.2f}]",
        }
        if self.memory_mb is not None:
            shown |= {"memory": f"{self.memory_mb:.0f} MB", "times": f"{self.memory_ratio:.2f}"}
        return shown


def measure(name: str, engines: Sequence[str], repeats: int, advance: Advance, *, memory: bool) -> list[PrivacyRow]:
    """Rows of the model `name` for plain steps and each of `engines`, on one thread.

    Repetitions are interleaved: each plays one step of every engine, so that load from elsewhere falls on all alike.
    memory  False leaves out the processes that only measure it
    """
    subject = SUBJECTS[name]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        order = ("sgd", *(each for each in engines if each != "sgd"))
        sizes = {each: _size(name, each) for each in order}
        steps = {each: make(subject, each, sizes[each]) for each in order}
        taken = _taken(steps, repeats, advance)
    finally:
        torch.set_num_threads(threads)
    grown: dict[str, float] = {}
    for each in order if memory else ():
        grown[each] = _grown(name, each, sizes[each])
        advance(1)
    rows = []
    for each in order:
        ratios = [mine / theirs for mine, theirs in zip(taken[each], taken["sgd"], strict=True)]
        low, _, high = quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else [ratios[0]] * 3
        rows.append(
            PrivacyRow(
                model=name,
                engine=each,
                cpu_seconds=median(taken[each]),
                ratio=median(ratios),
                ratio_low=low,
                ratio_high=high,
                memory_mb=grown.get(each),
                memory_ratio=grown[each] / grown["sgd"] if memory else None,
                records=sizes[each],
                repeats=repeats,
            )
        )
    return rows


def _size(model: str, engine: str) -> int | None:
    """Records of a micro-batch, as a site would take them."""
    if engine not in OWN:
        return None
    size: int | None = SMALL if engine == "bk-small" else getattr(picked(SUBJECTS[model], engine), "records", None)
    return size


def _taken(steps: dict[str, Step], repeats: int, advance: Advance) -> dict[str, list[float]]:
    """CPU seconds of each step; the first of each is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            begun = time.process_time()
            step()
            taken[name].append(time.process_time() - begun)
        advance(1)
    return taken


def _grown(model: str, engine: str, records: int | None) -> float:
    """`grown` in a process of its own. Errors: Refusal PROCESS_FAILED."""
    asked = json.dumps([model, engine, records])
    done = subprocess.run(
        [sys.executable, "-m", "simulations.bench.privacy", asked],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode:
        told = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Refusal(Code.PROCESS_FAILED, f"Memory of {engine} not measured", told, "Run it with --no-memory")
    return float(done.stdout.split()[-1])


def grown(model: str, engine: str, records: int | None) -> float:
    """MiB by which this process grows, at its peak, over three steps; what two records need is not counted."""
    torch.set_num_threads(1)
    subject = SUBJECTS[model]
    make(replace(subject, records=2), engine, records)()
    step = make(subject, engine, records)
    forget_peak()
    before = resident_mb()
    for _ in range(3):
        step()
    return peak_mb() - before


def resident_mb() -> float:
    """Memory that this process holds now (MiB; Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.stdout.write(f"{grown(*json.loads(sys.argv[1])):.2f}\n")

"""Rows of other systems beside the bare loop: their rounds and its rounds in turn."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from common.parameters import flatten
from simulations.bench.peers.environments import PEERS, Played, built, left_for, played
from simulations.bench.simulate_rows import Advance, SimulationRow
from simulations.bench.simulate_works import WORKS, Population, Setting, bare, following, population


def peers_of(work: str) -> list[str]:
    """Who can play the rounds `work`."""
    return [name for name, peer in PEERS.items() if peer.local or not WORKS[work].local]


def measure_peers(work: str, folder: Path, repeats: int, advance: Advance) -> list[SimulationRow]:
    """Rows of all peers that can play `work`, in environments under `folder`, which are made where they are not there.

    The bare loop is played before and after each: the least of both is what ratios are to.
    Errors: Refusal PROCESS_FAILED.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    setting, data = WORKS[work], population(WORKS[work])
    with tempfile.TemporaryDirectory(prefix="rounds-", dir=folder) as place:
        files = left_for(setting, data, repeats + 1, Path(place))
        for name in peers_of(work):
            peer = PEERS[name]
            python = built(peer, folder.resolve())
            before = _bare(setting, data, repeats)
            found = played(peer, python, files)
            rows.append(_row(work, found, peer.title, [*before, *_bare(setting, data, repeats)]))
            advance(1)
    return rows


def _bare(setting: Setting, data: Population, repeats: int) -> list[float]:
    """CPU seconds of each round but the first, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        play, parameters, taken = bare(setting, data), flatten(setting.course().model), []
        for number in range(repeats + 1):
            begun = time.process_time()
            parameters = following(setting, play, parameters, number)
            taken.append(time.process_time() - begun)
        return taken[1:]
    finally:
        torch.set_num_threads(threads)


def _row(work: str, found: Played, title: str, floor: list[float]) -> SimulationRow:
    return SimulationRow(
        work=work,
        engine=title,
        cpu_seconds_per_round=min(found.rounds),
        ratio_floor=min(found.rounds) / min(floor),
        ratio_median=median(found.rounds) / median(floor),
        updates_per_second=WORKS[work].cohort / min(found.rounds),
        peak_mb=found.peak_mb,
        first_round_seconds=found.first,
        repeats=len(found.rounds),
    )

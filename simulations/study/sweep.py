"""A study played: whatever cells are missing, in worker processes, until all have a result."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config import plain
from common.errors import Code, Refusal
from simulations.engines.catalogue import EngineName
from simulations.engines.cluster import ADDRESS
from simulations.finish import refuse_to_overwrite
from simulations.study.cells import Cell, check, rows_of
from simulations.study.code import PLAYER, code_digest
from simulations.study.plan import Study, study_of
from simulations.study.store import Store
from simulations.study.workers import Crew, Done, Order


@dataclass(frozen=True)
class Sweep:
    """How cells are played: by the function `player` ("module:function"), whose code has the digest `code`."""

    player: str
    code: str


def real() -> Sweep:
    """Cells as simulated federations, by the code of this installation."""
    return Sweep(f"{PLAYER}:play_cell", code_digest())


def created(study: Study, folder: Path) -> Store:
    """The new folder of a study, once nothing in it is refused. Errors: Refusal, and then nothing was written."""
    refuse_to_overwrite(folder)
    check(rows_of(study))
    store = Store(folder)
    store.write_plan(plain(study))
    return store


def planned(store: Store) -> Study:
    """The study that a folder holds. Errors: Refusal FILE_MISSING, DATA_INVALID, CONFIG_INVALID."""
    return study_of(store.plan())


def workers_of(study: Study, asked: int | None = None) -> int:
    """How many cells of a study are played at a time. asked: by the command line, before all else.

    Errors: Refusal CONFIG_INVALID for cells on a Ray cluster, unless one after the other, and on one that runs already:
    two runs that share a cluster would each wait for the processors of the other.
    """
    count = asked or study.workers
    if study.engine != EngineName.RAY:
        return count or len(os.sched_getaffinity(0))
    if (count or 1) > 1:
        why = "a run on Ray takes the whole cluster"
        raise Refusal(Code.CONFIG_INVALID, f"workers = {count} with the engine ray", why, "Set workers = 1")
    if not os.environ.get(ADDRESS):
        why = "a cell has one processor of this machine, and on that no cluster"
        raise Refusal(
            Code.CONFIG_INVALID, "A study with the engine ray", why, f"Start a cluster and name it in {ADDRESS}"
        )
    return 1


def missing(store: Store, cells: Sequence[Cell], code: str, *, retry: bool = False) -> tuple[Cell, ...]:
    """The cells without a result of this code; with `retry` also those that failed."""
    found = [(cell, store.read(cell.id(code))) for cell in cells]
    return tuple(cell for cell, result in found if result is None or (retry and result.status != "completed"))


def sweep(
    store: Store,
    cells: Sequence[Cell],
    how: Sweep,
    *,
    workers: int,
    retry: bool = False,
    seen: Callable[[Done], None] = lambda _: None,
) -> None:
    """Play what is missing of `cells`, at most `workers` at a time; `seen` hears of each as it ends.

    Guarantee: every cell has its result whole or not at all, whenever this process ends and however; one that was
    stopped goes on where it was, and gives the results that it would have given (noise of the system apart).
    Errors: Refusal ALREADY_RUNNING, FILE_UNWRITABLE for a full disk, PROCESS_FAILED; KeyboardInterrupt.
    """
    with store.alone():
        store.clear()
        orders = [Order(cell.id(how.code), cell.form) for cell in missing(store, cells, how.code, retry=retry)]
        try:
            with Crew(store, how.player, min(workers, len(orders))) as crew:
                for done in crew.play(orders):
                    seen(done)
        finally:
            store.clear()

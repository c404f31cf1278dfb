"""One cell played in a process of its own: the run, and how it ended."""

from __future__ import annotations

import errno
import json
import traceback
from dataclasses import replace
from pathlib import Path

from common.errors import Code, Refusal
from simulations.engines.catalogue import EngineName
from simulations.play import play
from simulations.scenario import scenario_of_table
from simulations.study.results import Result, failure_of, result_of
from simulations.study.store import FAULT, RUN
from simulations.turnout import curve_of

DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


def play_cell(form: bytes, folder: Path) -> Result:
    """Play the cell of these canonical bytes; its run directory is `folder`/run.

    The files of its world lie under `folder` too while it is played, so that nothing is left elsewhere by a process
    that is killed. A refusal or a fault is a result; the traceback of a fault goes into `folder`/fault.log.
    Errors: OSError of the disk, which no cell answers for.
    """
    table = json.loads(form)
    try:
        scenario, engine = scenario_of_table(table["scenario"]), EngineName(table["engine"])
        result = result_of(play(scenario, folder / RUN, engine=engine, workshop=folder))
        return replace(result, curve=_curve(folder / RUN)) if scenario.world.faults.timed else result
    except Exception as error:
        if of_disk := _of_disk(error):
            raise of_disk from error
        if isinstance(error, Refusal):
            return failure_of(error)
        (folder / FAULT).write_text(traceback.format_exc(), encoding="utf-8")
        why = f"unexpected {type(error).__name__}, see {FAULT}"
        return Result(status="error", code=Code.INTERNAL.value, why=why)


def _curve(run: Path) -> tuple[tuple[float, float], ...]:
    return curve_of([json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()])


def _of_disk(error: BaseException | None) -> OSError | None:
    """The error of a disk that is full or broken, which `error` may have come of."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in DISK:
            return error
        error = error.__cause__ or error.__context__
    return None

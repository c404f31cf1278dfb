"""What `hushfed simulate` does with studies: play one, go on, show its table, compare its rows."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from common import console
from common.config import one_of, plain
from common.outlet import say
from common.stopping import Stopping
from simulations.audits.intervals import Verdict
from simulations.engines.catalogue import EngineName
from simulations.study.cells import cells_of, check, rows_of
from simulations.study.code import code_digest
from simulations.study.comparison import compare as compared
from simulations.study.plan import Study, found_study, read_study
from simulations.study.store import Store
from simulations.study.sweep import created, missing, planned, real, sweep, workers_of
from simulations.study.table import Table, table_of
from simulations.study.words import comparison_text, table_text

EXITS: Mapping[Verdict | None, console.Exit] = {
    None: console.Exit.DONE,
    Verdict.PASS: console.Exit.DONE,
    Verdict.FAIL: console.Exit.FAIL,
    Verdict.INCONCLUSIVE: console.Exit.INCONCLUSIVE,
}
Folder = Annotated[Path, typer.Argument(help="Folder of a study.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Of a study: cells at a time, each with one thread.")]


@dataclass(frozen=True)
class Asked:
    """What a command line says of a study: --set, --engine, --workers."""

    changes: Sequence[str]
    engine: str | None
    workers: int | None


def run_study(path: Path, asked: Asked, *, out: Path | None, json: bool) -> console.Exit:
    """Play the study of a file in the new or empty folder `out`, and print its table."""
    study = read_study(path, asked.changes)
    if asked.engine is not None:
        one_of(asked.engine, "--engine", [each.value for each in EngineName])
        study = replace(study, engine=asked.engine)
    out = (out or Path(f"hushfed-{study.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")).resolve()
    count = workers_of(study, asked.workers)
    return _played(created(study, out), study, workers=count, retry=False, json=json)


@console.guarded
def resume(
    folder: Folder,
    *,
    workers: Workers = None,
    retry: Annotated[bool, typer.Option("--retry", help="Play cells again that failed.")] = False,
    study: Annotated[Path | None, typer.Option(help="Go on with this study: cells that it shares are kept.")] = None,
    json: Json = False,
) -> console.Exit:
    """Go on with a study that was stopped: play the cells that have no result of this code."""
    store = Store(folder.resolve())
    if study is None:
        plan = planned(store)
    else:
        plan = read_study(found_study(study))
        check(rows_of(plan))
        workers_of(plan, workers)
        with store.alone():
            store.write_plan(plain(plan))
    return _played(store, plan, workers=workers_of(plan, workers), retry=retry, json=json)


@console.guarded
def table(folder: Folder, *, json: Json = False) -> console.Exit:
    """Show what the cells of a study came to, with intervals, failures and gates."""
    store = Store(folder.resolve())
    return _shown(table_of(store, planned(store), code_digest()), {}, json=json)


@console.guarded
def compare(
    folder: Folder,
    *,
    baseline: Annotated[str, typer.Option(help="Number or settings of a row; or pooled, alone, twin.")] = "1",
    metric: Annotated[str, typer.Option(help="What is compared: accuracy, epsilon, …")] = "accuracy",
    json: Json = False,
) -> console.Exit:
    """Compare the rows of a study with one of them, or with a baseline: paired over common seeds."""
    store = Store(folder.resolve())
    made = table_of(store, planned(store), code_digest())
    found = compared(made, baseline, metric)
    if json:
        console.emit({"status": made.status, **found.as_dict()}, json=True)
    else:
        say(comparison_text(found))
    return console.Exit.DONE


def _played(store: Store, study: Study, *, workers: int, retry: bool, json: bool) -> console.Exit:
    how, cells = real(), cells_of(rows_of(study))
    left = len(missing(store, cells, how.code, retry=retry))
    with Stopping(), console.progress("Cells", left, json=json) as step:
        sweep(store, cells, how, workers=workers, retry=retry, seen=lambda done: step(note=done.result.status))
    told: dict[str, Any] = {"study": str(store.folder), "cells": len(cells), "played": left}
    return _shown(table_of(store, study, how.code), told, json=json)


def _shown(table: Table, told: Mapping[str, Any], *, json: bool) -> console.Exit:
    if json:
        console.emit({**told, **table.as_dict()}, json=True)
    else:
        say(table_text(table))
    return EXITS[table.verdict]

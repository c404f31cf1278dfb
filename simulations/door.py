"""hushfed simulate: a whole federation in one process, the same rounds, guards and masks as in a deployment."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from common import console
from common.config import one_of
from common.errors import Code, Refusal
from common.shortcut import shortcut
from simulations.demo import deploy
from simulations.engines.catalogue import EngineName
from simulations.engines.cluster import ADDRESS, CPUS, GPUS, ClusterSettings, refuse_absent
from simulations.finish import refuse_to_overwrite
from simulations.play import play
from simulations.scenario import found, parted, read_scenario
from simulations.study import door as study
from simulations.study.plan import found_study, is_study

app = typer.Typer(cls=shortcut("run"), help="Simulate a federation in one process.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Simulate a federation in one process."""


@app.command("run")
@console.guarded
def run(
    scenario: Annotated[Path, typer.Argument(help="scenario.toml, study.toml, or the name of an example.")],
    *,
    engine: Annotated[
        str | None,
        typer.Option(
            help="process: many sites at once, on every core; ray: on a Ray cluster; loop: one after another."
        ),
    ] = None,
    ray: Annotated[
        list[str] | None,
        typer.Option(help="Of the engine ray: address=HOST:PORT of the cluster, cpus=1 and gpus=0.5 of a worker."),
    ] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Replace a setting: job.rounds=10.")] = None,
    out: Annotated[Path | None, typer.Option(help="New or empty folder for the run directory.")] = None,
    workers: study.Workers = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """Run a scenario and write its run directory; of a study, run all its cells and print their table."""
    path = found_study(scenario)
    if is_study(path):
        if ray:
            do = f"Set {ADDRESS}, {CPUS} and {GPUS} in the environment"
            raise Refusal(Code.CONFIG_INVALID, "--ray of a study", "cells are played by other processes", do)
        return study.run_study(path, study.Asked(changes or [], engine, workers), out=out, json=json)
    chosen = EngineName.PROCESS.value if engine is None else engine
    one_of(chosen, "--engine", [each.value for each in EngineName])
    if workers is not None:
        why = "one scenario is one run; only a study has cells to share out"
        raise Refusal(Code.CONFIG_INVALID, "--workers", why, "Leave it out, or name a study")
    cluster = _cluster(EngineName(chosen), ray or ())
    read = read_scenario(path, changes or ())
    name = f"hushfed-{read.job.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    out = (out or Path(name)).resolve()
    refuse_to_overwrite(out)
    console.emit(play(read, out, engine=EngineName(chosen), cluster=cluster), json=json)
    return console.Exit.DONE


def _cluster(engine: EngineName, changes: Sequence[str]) -> ClusterSettings | None:
    """What environment and command line say of the engine ray. Errors: Refusal CONFIG_INVALID, PART_MISSING."""
    if engine is EngineName.RAY:
        refuse_absent()
        return ClusterSettings.of(os.environ, dict(map(parted, changes)))
    if changes:
        raise Refusal(
            Code.CONFIG_INVALID, "--ray", f"the engine {engine} has no cluster", "Leave it out, or add --engine ray"
        )
    return None


app.command("resume")(study.resume)
app.command("table")(study.table)
app.command("compare")(study.compare)


@app.command("settle")
@console.guarded
def settle(
    scenario: Annotated[Path, typer.Argument(help="scenario.toml, or the name of an example.")],
    *,
    out: Annotated[Path, typer.Option(help="New or empty folder for the federation.")],
    changes: Annotated[list[str] | None, typer.Option("--set", help="Replace a setting: job.rounds=10.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """Set up a scenario's federation as files, to rehearse with real processes; nothing runs yet."""
    refuse_to_overwrite(out)
    done = deploy(read_scenario(found(scenario), changes or ()), out.resolve())
    sites = [str(site.settings) for site in done.folder.sites]
    console.emit({"status": "ok", "federation": str(out), "job": str(done.job), "sites": sites}, json=json)
    return console.Exit.DONE

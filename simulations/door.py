"""hushfed simulate: a whole federation in one process, the same rounds, guards and masks as in a deployment."""

from __future__ import annotations

import secrets
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from common import console
from common.config import one_of
from common.shortcut import shortcut
from simulations.demo import deploy
from simulations.engines.catalogue import EngineName
from simulations.finish import finish, refuse_to_overwrite
from simulations.scenario import found, read_scenario
from simulations.world import simulate

app = typer.Typer(cls=shortcut("run"), help="Simulate a federation in one process.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Simulate a federation in one process."""


@app.command("run")
@console.guarded
def run(
    scenario: Annotated[Path, typer.Argument(help="scenario.toml, or the name of an example.")],
    *,
    engine: Annotated[
        str, typer.Option(help="process: many sites at once, on every core; loop: one after another.")
    ] = (EngineName.PROCESS.value),
    changes: Annotated[list[str] | None, typer.Option("--set", help="Replace a setting: job.rounds=10.")] = None,
    out: Annotated[Path | None, typer.Option(help="New or empty folder for the run directory.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """Run a scenario and write its run directory."""
    one_of(engine, "--engine", list(EngineName))
    read = read_scenario(found(scenario), changes or ())
    name = f"hushfed-{read.job.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    out = (out or Path(name)).resolve()
    refuse_to_overwrite(out)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hushfed-world-") as folder:
        done = simulate(read, Path(folder) / "federation", EngineName(engine))
        result = finish(read, done.work.job, done.federation, done.record, out)
    result["seconds"] = round(time.monotonic() - begun, 1)
    console.emit(result, json=json)
    return console.Exit.DONE


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

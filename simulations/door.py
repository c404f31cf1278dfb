"""hushfed simulate: a whole federation in one process, the same rounds, guards and masks as in a deployment."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Annotated

import typer

from common import console
from common.config import one_of
from common.errors import Code, Refusal
from common.shortcut import shortcut
from simulations.demo import deploy
from simulations.engines.catalogue import EngineName
from simulations.finish import refuse_to_overwrite
from simulations.play import play
from simulations.scenario import found, read_scenario
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
        str | None, typer.Option(help="process: many sites at once, on every core; loop: one after another.")
    ] = None,
    changes: Annotated[list[str] | None, typer.Option("--set", help="Replace a setting: job.rounds=10.")] = None,
    out: Annotated[Path | None, typer.Option(help="New or empty folder for the run directory.")] = None,
    workers: study.Workers = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """Run a scenario and write its run directory; of a study, run all its cells and print their table."""
    path = found_study(scenario)
    if is_study(path):
        return study.run_study(path, study.Asked(changes or [], engine, workers), out=out, json=json)
    chosen = EngineName.PROCESS.value if engine is None else engine
    one_of(chosen, "--engine", [each.value for each in EngineName])
    if workers is not None:
        why = "one scenario is one run; only a study has cells to share out"
        raise Refusal(Code.CONFIG_INVALID, "--workers", why, "Leave it out, or name a study")
    read = read_scenario(path, changes or ())
    name = f"hushfed-{read.job.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    out = (out or Path(name)).resolve()
    refuse_to_overwrite(out)
    console.emit(play(read, out, engine=EngineName(chosen)), json=json)
    return console.Exit.DONE


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

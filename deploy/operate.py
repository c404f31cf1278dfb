"""hushfed server: submit a job to the running server, watch it, resume it after a crash, fetch its result."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from common import console
from common.errors import Code, Refusal
from deploy.fleet import FleetControl, make_bundle
from deploy.host import control_of, refusal_of, rounds_of
from deploy.outcome import is_played, lacks_ledgers, note_start, outcome, progress

app = typer.Typer(help="Run jobs on a federation's server.", no_args_is_help=True)

LOOK_SECONDS = 0.3
STOP_SECONDS = 20.0  # until a coordinator that was told to stop is gone
Root = Annotated[Path, typer.Option("--federation", help="Folder of the federation.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.callback()
def _group() -> None:
    """Run jobs on a federation's server."""


@app.command("run")
@console.guarded
def run(job: Annotated[Path, typer.Argument(help="job.toml")], *, federation: Root, json: Json = False) -> console.Exit:
    """Submit a job and wait for its end."""
    state = _state(federation)
    if (state / "checkpoint.safetensors").exists():
        raise Refusal(
            Code.FILE_EXISTS,
            f"Job {job} not run",
            f"{state} holds a run already",
            "Resume it, or fetch its result with --clear and then run the job",
        )
    return _play(job, federation, resume=False, json=json)


@app.command("resume")
@console.guarded
def resume(
    job: Annotated[Path, typer.Argument(help="job.toml of the run")], *, federation: Root, json: Json = False
) -> console.Exit:
    """Go on from the last whole round of a run whose coordinator stopped or died, or ask for missing ledgers again."""
    if (_state(federation) / "result" / "run.json").exists() and not lacks_ledgers(_state(federation)):
        return _finished(_state(federation), json=json)
    if not (_state(federation) / "checkpoint.safetensors").exists():
        raise Refusal(Code.RUN_UNKNOWN, "Run not resumed", "there is no checkpoint", "Start it with `server run`")
    return _play(job, federation, resume=True, json=json)


@app.command("status")
@console.guarded
def status(*, federation: Root, json: Json = False) -> console.Exit:
    """Show the nodes that are online, and how far the run is."""
    found = progress(_state(federation), federation)
    control = control_of(federation.resolve())
    try:
        found["nodes"] = [{"name": node.name, "online": node.online} for node in control.nodes()]
    except Refusal as refusal:
        found["nodes"] = []
        found["server"] = refusal.code.value
    finally:
        control.close()
    console.emit(found, json=json)
    return console.Exit.DONE


@app.command("result")
@console.guarded
def result(
    out: Annotated[Path, typer.Argument(help="New folder for the run directory.")],
    *,
    federation: Root,
    clear: Annotated[bool, typer.Option(help="Make room for the next job.")] = False,
    json: Json = False,
) -> console.Exit:
    """Copy the run directory of the finished run."""
    state = _state(federation)
    if not (state / "result" / "run.json").exists():
        raise Refusal(Code.RUN_UNKNOWN, "No result", "the run has not ended well", "See `hushfed server status`")
    if out.exists():
        raise Refusal(Code.FILE_EXISTS, f"{out} not written", "it is there already", "Name a new folder")
    shutil.copytree(state / "result", out)
    if clear:
        state.rename(state.with_name(f"state-{(state / 'run.id').read_text()[:12]}"))
    console.emit({"status": "ok", "run": str(out)}, json=json)
    return console.Exit.DONE


def _play(job: Path, root: Path, *, resume: bool, json: bool) -> console.Exit:
    state, coordinator = _state(root), root.resolve() / "coordinator"
    if is_played(state):
        why = "a coordinator is at work on it, whoever started it"
        raise Refusal(Code.ALREADY_RUNNING, f"Job {job} not run", why, "Watch it with `hushfed server status`")
    control = control_of(root.resolve())
    try:
        number = control.start(
            {"federation": str(coordinator), "job": str(job.resolve()), "state": str(state), "resume": resume},
            make_bundle(),
        )
        note_start(state, job.resolve(), os.getpid())
        try:
            details = _watched(control, number, state, json=json)
        except KeyboardInterrupt:
            return _stopped(control, number, state, root, json=json)
    finally:
        control.close()
    if (state / "refusal.json").exists() or not (state / "result" / "run.json").exists():
        raise refusal_of(state, details)
    return _finished(state, json=json)


def _watched(control: FleetControl, number: int, state: Path, *, json: bool) -> str:
    """Show the rounds until the run has ended; what the server says of its end."""
    with console.progress("Rounds", json=json) as step:
        seen = 0
        while not (current := control.run(number)).finished:
            for row in rounds_of(state)[seen:]:
                seen += 1
                step(note=f"{len(row['sites'])} sites")
            time.sleep(LOOK_SECONDS)
    return current.details


def _stopped(control: FleetControl, number: int, state: Path, root: Path, *, json: bool) -> console.Exit:
    """Ctrl-C stops the run itself: the last whole round is kept, and the answer says how to go on."""
    with suppress(Refusal):  # it may have ended meanwhile
        control.stop(number)
    end = time.monotonic() + STOP_SECONDS
    while is_played(state) and time.monotonic() < end:
        time.sleep(LOOK_SECONDS)
    console.emit(progress(state, root), json=json)
    return console.Exit.INTERRUPTED


def _finished(state: Path, *, json: bool) -> console.Exit:
    console.emit(outcome(state), json=json)
    return console.Exit.DONE


def _state(root: Path) -> Path:
    return root.resolve() / "coordinator" / "state"

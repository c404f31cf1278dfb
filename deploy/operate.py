"""hushfed server: submit a job to the running server, watch it, resume it after a crash, fetch its result."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from common import console
from common.errors import Code, Refusal
from common.status_file import read_status
from deploy.aside import refuse_if_played, set_aside
from deploy.fleet import FleetControl, make_bundle
from deploy.host import control_of, refusal_of, rounds_of, turned_away
from deploy.outcome import STARTING, is_played, lacks_ledgers, note_start, note_stop, outcome, progress

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
    """Submit a job and wait for its end.

    Exit code 2: the run is complete, but a ledger is missing, so that nobody can check it; `server resume` asks again.
    """
    state = _state(federation)
    refuse_if_played(state, f"Job {job} not run")
    if (state / "checkpoint.safetensors").exists():
        do = f"{_ways_on(progress(state, federation))}; then run the job"
        raise Refusal(Code.FILE_EXISTS, f"Job {job} not run", f"{state} holds a run already", do)
    return _play(job, federation, resume=False, json=json)


@app.command("resume")
@console.guarded
def resume(
    job: Annotated[Path, typer.Argument(help="job.toml of the run")], *, federation: Root, json: Json = False
) -> console.Exit:
    """Go on from the last whole round of a run whose coordinator stopped or died, or ask for missing ledgers again.

    Exit code 2: the run is complete, but a ledger is still missing.
    """
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
        raise Refusal(
            Code.RUN_UNKNOWN, "No result", "the run has not ended well", _ways_on(progress(state, federation))
        )
    if clear:
        refuse_if_played(state, "Result not cleared")
    if out.exists():
        raise Refusal(Code.FILE_EXISTS, f"{out} not written", "it is there already", "Name a new folder")
    shutil.copytree(state / "result", out)
    if clear:
        set_aside(state, "hushfed server result --clear")
    console.emit({"status": "ok", "run": str(out)}, json=json)
    return console.Exit.DONE


@app.command("discard")
@console.guarded
def discard(*, federation: Root, json: Json = False) -> console.Exit:
    """Give up a run that is not to go on: its folder is kept under another name, and the next job finds room."""
    state = _state(federation)
    refuse_if_played(state, "Run not given up")
    found = progress(state, federation)
    if found["status"] == STARTING:
        why = f"process {read_status(state / 'progress.json').get('pid')} has just submitted it"
        raise Refusal(Code.ALREADY_RUNNING, "Run not given up", why, "Stop that command first")
    if found["status"] == "idle":
        raise Refusal(Code.RUN_UNKNOWN, "No run given up", "there is none", "Start one with `hushfed server run`")
    kept = set_aside(state, "hushfed server discard")
    console.emit(
        {"status": "discarded", "was": found["status"], "rounds": found["rounds"], "kept": str(kept)}, json=json
    )
    return console.Exit.DONE


def _play(job: Path, root: Path, *, resume: bool, json: bool) -> console.Exit:
    state, coordinator = _state(root), root.resolve() / "coordinator"
    refuse_if_played(state, f"Job {job} not run")
    control = control_of(root.resolve())
    try:
        number = control.start(
            {"federation": str(coordinator), "job": str(job.resolve()), "state": str(state), "resume": resume},
            make_bundle(),
        )
        try:
            if not is_played(state):
                note_start(state, job.resolve(), os.getpid())
            details = _watched(control, number, state, json=json)
        except KeyboardInterrupt:
            return _stopped(control, number, state, root, json=json)
    finally:
        control.close()
    if (refusal := turned_away(state, number)) is not None:
        raise refusal
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
    note_stop(state, os.getpid())
    console.emit(progress(state, root), json=json)
    return console.Exit.INTERRUPTED


def _ways_on(found: Mapping[str, Any]) -> str:
    """What can be done about the run in the folder, so that another finds room. `found` as of `progress`."""
    if found["status"] == "completed":
        return "Fetch its result with `hushfed server result OUT --clear`"
    if "do" not in found:
        return "See `hushfed server status`"
    return f"Go on with `{found['do']}`, or give it up with `{found['give_up']}`"


def _finished(state: Path, *, json: bool) -> console.Exit:
    """A run that lacks a ledger is over, but nobody can check what it promised: neither done nor failed."""
    found = outcome(state)
    console.emit(found, json=json)
    return console.Exit.INCONCLUSIVE if found["ledgers_missing"] else console.Exit.DONE


def _state(root: Path) -> Path:
    return root.resolve() / "coordinator" / "state"

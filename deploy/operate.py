"""hushfed server: submit a job to the running server, watch it, resume it after a crash, fetch its result."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from common import console
from common.errors import Code, Refusal
from deploy.fleet import make_bundle
from deploy.host import control_of, refusal_of, rounds_of

app = typer.Typer(help="Run jobs on a federation's server.", no_args_is_help=True)

LOOK_SECONDS = 0.3
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
    """Go on from the last whole round of a run whose coordinator stopped or died."""
    if (_state(federation) / "result" / "run.json").exists():
        return _finished(_state(federation), json=json)
    if not (_state(federation) / "checkpoint.safetensors").exists():
        raise Refusal(Code.RUN_UNKNOWN, "Run not resumed", "there is no checkpoint", "Start it with `server run`")
    return _play(job, federation, resume=True, json=json)


@app.command("status")
@console.guarded
def status(*, federation: Root, json: Json = False) -> console.Exit:
    """Show the nodes that are online, and how far the run is."""
    rows = rounds_of(_state(federation))
    found: dict[str, Any] = {
        "status": _stage(_state(federation)),
        "rounds": len(rows),
        "last": rows[-1] if rows else None,
    }
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
    control = control_of(root.resolve())
    try:
        number = control.start(
            {"federation": str(coordinator), "job": str(job.resolve()), "state": str(state), "resume": resume},
            make_bundle(),
        )
        with console.progress("Rounds", json=json) as step:
            seen = 0
            while not (current := control.run(number)).finished:
                for row in rounds_of(state)[seen:]:
                    seen += 1
                    step(note=f"{len(row['sites'])} sites")
                time.sleep(LOOK_SECONDS)
    finally:
        control.close()
    if not (state / "result" / "run.json").exists():
        raise refusal_of(state, current.details)
    return _finished(state, json=json)


def _finished(state: Path, *, json: bool) -> console.Exit:
    console.emit({"status": "completed", "run": str(state / "result"), "rounds": len(rounds_of(state))}, json=json)
    return console.Exit.DONE


def _state(root: Path) -> Path:
    return root.resolve() / "coordinator" / "state"


def _stage(state: Path) -> str:
    if (state / "result" / "run.json").exists():
        return "completed"
    if (state / "refusal.json").exists():
        return "failed"
    return "running" if (state / "checkpoint.safetensors").exists() else "idle"

"""How far a run is, and how it ended, as the folder of its coordinator tells it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.lock import is_held
from common.participation import absences, contributed, participation, unverified
from common.status_file import living, read_status, write_status
from deploy.host import rounds_of

STARTING = "starting"


def outcome(state: Path) -> dict[str, Any]:
    """What commands say of a finished run: who contributed and who did not, whose ledger is missing, what to do."""
    table = json.loads((state / "result" / "run.json").read_text())
    rounds = rounds_of(state)
    rows = participation(table, rounds)
    return {
        "status": "completed",
        "run": str(state / "result"),
        "rounds": len(rounds),
        "contributed": len(contributed(rows)),
        "sites": rows,
        "notes": [*absences(rows), *unverified(rows)],
        "ledgers_missing": table.get("ledgers_missing") or [],
    }


def lacks_ledgers(state: Path) -> bool:
    """Whether the run ended without a ledger that its audit will ask for."""
    return bool(outcome(state)["ledgers_missing"])


def note_start(state: Path, job: Path, pid: int) -> None:
    """Leave word that a coordinator was asked for; its own takes its place."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_status(state / "progress.json", {"stage": STARTING, "pid": pid, "job": str(job)})


def note_stop(state: Path, pid: int) -> None:
    """Take back the word of `note_start`: nobody waits for a coordinator any more."""
    told = read_status(state / "progress.json")
    if told.get("stage") == STARTING and told.get("pid") == pid:
        write_status(state / "progress.json", {name: told[name] for name in told if name != "pid"})


def is_played(state: Path) -> bool:
    """Whether a coordinator is at work in the folder now. It holds a lock that ends with it, however it ends."""
    return is_held(state / "coordinator.lock")


def progress(state: Path, root: Path) -> dict[str, Any]:
    """Where the run in the folder stands, and what to do next where something must be done."""
    told = read_status(state / "progress.json")
    rows = rounds_of(state)
    found: dict[str, Any] = {"status": _stage(state, told), "rounds": len(rows), "last": rows[-1] if rows else None}
    if found["status"] in ("running", STARTING):
        shown = ("stage", "round", "of", "attempt", "failed_attempts", "spare_attempts", "since")
        return found | {name: told[name] for name in shown if name in told}
    if found["status"] == "completed":
        return found | {name: value for name, value in outcome(state).items() if name not in found}
    if (do := _next(state, root, found["status"], told)) is not None:
        found["do"] = do
        found["give_up"] = give_up(root)
    if found["status"] == "failed":
        found["refusal"] = read_status(state / "refusal.json")
    return found


def give_up(root: Path) -> str:
    """The command that makes room for another job where a run is not to go on."""
    return f"hushfed server discard --federation {root}"


def _stage(state: Path, told: Mapping[str, Any]) -> str:
    if is_played(state):
        return "running"
    if (state / "result" / "run.json").exists():
        return "completed"
    if told.get("stage") == STARTING and living(told):
        return STARTING
    if (state / "refusal.json").exists():
        return "failed"
    return "interrupted" if told or (state / "checkpoint.safetensors").exists() else "idle"


def _next(state: Path, root: Path, stage: str, told: Mapping[str, Any]) -> str | None:
    """The command that goes on with a run that does not."""
    if stage == "idle":
        return None
    word = "resume" if (state / "checkpoint.safetensors").exists() else "run"
    return f"hushfed server {word} {told.get('job', 'JOB')} --federation {root}"

"""A run's folder moved aside: whole, under another name, so that the next job finds room."""

from __future__ import annotations

import time
from pathlib import Path

from common.errors import Code, Refusal
from common.lock import Purpose, hold
from deploy.outcome import is_played


def refuse_if_played(state: Path, what: str) -> None:
    """Errors: Refusal ALREADY_RUNNING, with `what` it stopped, while a coordinator is at work in the folder."""
    if is_played(state):
        why = "a coordinator is at work on it, whoever started it"
        raise Refusal(Code.ALREADY_RUNNING, what, why, "Watch it with `hushfed server status`")


def set_aside(state: Path, by: str) -> Path:
    """Rename the folder of a run and return where it is kept: `state-` and its name, or the time for one without.

    by  the command that does it, for whoever meets its lock
    Guarantee: nothing is deleted, and nothing beside the folder changes: the heads of the ledgers that this federation
    acknowledged stay in force, so that a site rolled back meanwhile is still found out.
    Errors: Refusal ALREADY_RUNNING while a coordinator holds the folder; then it stays where it is.
    """
    name = state / "run.id"
    mark = name.read_text()[:12] if name.exists() else time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    kept = state.with_name(f"state-{mark}")
    purpose = Purpose(by=by, what="Run not moved aside", harm="its coordinator would go on in a folder that is gone")
    with hold(state / "coordinator.lock", purpose):
        state.rename(kept)
    return kept

"""What came of one cell: how it ended, its figures, and how both are read from a run or from a refusal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from common.errors import Code, Refusal

FAILED = "failed"  # share of cells that ended without a model; a figure of a row, not of a cell
TWIN = "twin_accuracy"  # of the same cell without privacy
# Where the summary of a run holds each figure of a cell, and what it is called in a table.
PLACES: Mapping[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "pooled_accuracy": ("pooled_accuracy",),
    "alone_accuracy": ("alone_accuracy",),
    "epsilon": ("privacy", "epsilon"),
    "rounds": ("rounds",),
    "sites": ("sites",),
}
# The same, of worlds with a clock.
CLOCKED: Mapping[str, tuple[str, ...]] = {
    name: ("simulated", name) for name in ("hours", "late", "slow_weight", "slow_accuracy")
}
# The same, of worlds in which sites lie.
ATTACKED: Mapping[str, tuple[str, ...]] = {
    f"attack_{name}": ("attack", name) for name in ("difference", "success", "lift")
}
SIGNED = frozenset({"attack_difference", "attack_lift"})  # differences of shares
TO_TARGET = "hours_to_target"  # on the world's clock, until the study's target was reached
METRICS = (*PLACES, *CLOCKED, *ATTACKED, TO_TARGET, TWIN, FAILED)
SHARES = frozenset({"accuracy", "pooled_accuracy", "alone_accuracy", "late", "slow_accuracy", TWIN, FAILED, *ATTACKED})


@dataclass(frozen=True, kw_only=True)
class Result:
    """The end of one cell. A cell that failed is a result as well, and is counted as one.

    status   "diverged": training left the finite numbers; "error": a refusal or a fault, named by `code`
    why      of a failure, in words
    metrics  by name of METRICS; None is undefined. Empty after a failure
    curve    of a world with a clock: hours at the end of each round, and the accuracy then
    seconds  of wall clock; never part of a table, for it differs from run to run
    """

    status: Literal["completed", "diverged", "error"]
    code: str = ""
    why: str = ""
    metrics: dict[str, float | None] = field(default_factory=dict)
    curve: tuple[tuple[float, float], ...] = ()
    seconds: float = 0.0

    def reached(self, accuracy: float) -> float | None:
        """Hours until a round ended with this accuracy; None if none did, or the world has no clock."""
        return next((hours for hours, found in self.curve if found >= accuracy), None)


def result_of(summary: Mapping[str, Any]) -> Result:
    """The result of a run that ended, from the summary that `play` gave."""
    places = {**PLACES, **(CLOCKED if "simulated" in summary else {}), **(ATTACKED if summary.get("attack") else {})}
    metrics = {name: _figure(summary, place) for name, place in places.items()}
    if any(value is not None and not math.isfinite(value) for value in metrics.values()):
        return Result(status="diverged", code=Code.UPDATE_INVALID.value, why="a figure of the run is not finite")
    return Result(status="completed", metrics=metrics, seconds=float(summary.get("seconds") or 0.0))


def failure_of(refusal: Refusal) -> Result:
    """The result of a run that was refused.

    It diverged where updates were not finite: a site says so itself, or it is among the last words of a run whose
    sites all did.
    """
    diverged = refusal.code is Code.UPDATE_INVALID or Code.UPDATE_INVALID.value in refusal.why
    why = f"{refusal.what}: {refusal.why}"
    return Result(status="diverged" if diverged else "error", code=refusal.code.value, why=why)


def _figure(summary: Mapping[str, Any], place: tuple[str, ...]) -> float | None:
    value: Any = summary
    for name in place:
        value = value.get(name) if isinstance(value, Mapping) else None
    return float(value) if isinstance(value, (int, float)) else None

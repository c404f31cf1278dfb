"""Results of attacks on a run: kept in its audit.json, shown on its page, and dropped once the run is another one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from common.config import digest
from common.errors import Code, Refusal
from simulations.audits.fairness import Tolerance
from simulations.audits.runs import Run, artifacts
from simulations.audits.shape import read_object

ATTACKS = ("canaries", "membership", "inversion")  # their commands, and their places in audit.json


def mark_of(run: Run) -> str:
    """Names everything that a run wrote; a result with another mark is of another run."""
    return digest(artifacts(run)).hex()


def kept(run: Run) -> dict[str, Any]:
    """The attacks that were made on exactly this run, by name; None for those that were not."""
    before, mark = _before(run.folder), mark_of(run)
    return {name: one if _fits(one := before.get(name), name, mark) else None for name in ATTACKS}


def settings_before(folder: Path) -> tuple[Tolerance, Sequence[str]]:
    """Tolerance and attributes of the fairness audit that the report was built with last; nothing without one."""
    fairness = _before(folder).get("fairness")
    if not isinstance(fairness, dict):
        return Tolerance(), ()
    try:
        asked = Tolerance(difference=fairness.get("tolerance"), ratio=fairness.get("ratio_tolerance"))
    except (Refusal, TypeError):
        return Tolerance(), ()
    return asked, [str(name) for name in fairness.get("attributes") or () if fairness.get("metrics")]


def refuse_unwritable(folder: Path) -> None:
    """Refuse a run whose page cannot be written, before an attack takes minutes. Errors: Refusal FILE_UNWRITABLE."""
    if not os.access(folder, os.W_OK | os.X_OK):
        why = "the result is written into audit.json and report.html"
        raise Refusal(Code.FILE_UNWRITABLE, f"{folder} not attacked", why, "Copy the run to a folder of yours")


@dataclass(frozen=True, kw_only=True)
class _Metric:
    value: float
    low: float | None
    high: float | None
    tolerance: float | None
    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Attack:
    """What the page relies on in every attack's result."""

    verdict: Literal["PASS", "FAIL", "INCONCLUSIVE"]
    reason: str
    method: str
    metrics: dict[str, _Metric]
    run_mark: str


_MORE = {"canaries": (), "membership": ("curves", "rates", "allowed"), "inversion": ("kind", "protected", "shown")}


def _fits(one: Any, name: str, mark: str) -> bool:
    """Whether a result was made of this run, and has the form in which it was written."""
    try:
        msgspec.convert(one, type=_Attack, strict=True)
    except msgspec.ValidationError:
        return False
    return bool(one["run_mark"] == mark) and all(more in one for more in _MORE[name])


def _before(folder: Path) -> Mapping[str, Any]:
    path = folder / "audit.json"
    try:
        return read_object(path.read_text(encoding="utf-8"), path.name)
    except (OSError, UnicodeDecodeError, Refusal):
        return {}

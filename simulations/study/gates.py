"""Gates: what every row of a study must reach, and what its interval says to that."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from common.config import one_of
from common.errors import Code, Refusal
from simulations.audits.intervals import Interval, Verdict
from simulations.study.results import METRICS

_LIMIT = re.compile(r"(>=|<=)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", re.ASCII)
FIGURES = ("low", "mean", "high")


@dataclass(frozen=True, kw_only=True)
class Gate:
    """One line of [gates]: the figure `figure` of `metric` must be at least, or at most, `limit`."""

    metric: str
    figure: Literal["low", "mean", "high"]
    at_least: bool
    limit: float

    def holds(self, value: float) -> bool:
        """Whether `value` is on the right side."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{self.metric}.{self.figure} {'>=' if self.at_least else '<='} {self.limit:g}"


def gate_of(name: str, text: str) -> Gate:
    """The gate of a line: name "accuracy.low", text ">= 0.9". Errors: Refusal CONFIG_INVALID."""
    metric, _, figure = name.rpartition(".")
    read = _LIMIT.fullmatch(text.strip())
    if not metric or figure not in FIGURES:
        why = "it names no figure of a metric"
        raise Refusal(Code.CONFIG_INVALID, f"gates.{name!r}", why, 'Write "METRIC.low", "METRIC.mean" or "METRIC.high"')
    one_of(metric, "gates", METRICS)
    if not read:
        raise Refusal(Code.CONFIG_INVALID, f"gates.{name!r} = {text!r}", "it is no limit", 'Write ">= 0.9" or "<= 0.9"')
    return Gate(metric=metric, figure=figure, at_least=read[1] == ">=", limit=float(read[2]))  # type: ignore[arg-type]  # matched


def judged(gate: Gate, found: Interval | None, *, whole: bool) -> Verdict:
    """What a row says to a gate.

    found  mean and interval of its metric; None where no cell has that figure
    whole  whether every planned cell has a figure, made by this code
    PASS where the named figure keeps the limit, FAIL where no value of the interval does, INCONCLUSIVE otherwise.
    A row that is not whole never passes: cells without a figure are no random sample of it.
    """
    if found is None:
        return Verdict.INCONCLUSIVE
    if not any(gate.holds(value) for value in (found.low, found.value, found.high)):
        return Verdict.FAIL
    return Verdict.PASS if whole and gate.holds(getattr(found, _field(gate))) else Verdict.INCONCLUSIVE


def together(verdicts: Iterable[Verdict]) -> Verdict:
    """Of all rows and gates: FAIL if one fails, PASS if all pass."""
    found = set(verdicts)
    if Verdict.FAIL in found:
        return Verdict.FAIL
    return Verdict.PASS if found <= {Verdict.PASS} else Verdict.INCONCLUSIVE


def _field(gate: Gate) -> str:
    return "value" if gate.figure == "mean" else gate.figure

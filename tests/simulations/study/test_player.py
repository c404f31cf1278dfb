"""How a run's end becomes a result of its cell, and what is nobody's result."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import pytest

from common.errors import Code, Refusal
from simulations.study import player
from simulations.study.cells import cells_of, rows_of
from simulations.study.plan import study_of
from simulations.study.player import play_cell
from simulations.study.results import Result, failure_of, result_of
from simulations.study.store import FAULT
from tests.simulations.study.fakes import study_table

SUMMARY = {
    "status": "completed",
    "accuracy": 0.9,
    "pooled_accuracy": 0.95,
    "alone_accuracy": None,
    "privacy": {"epsilon": 2.0, "unit": "record"},
    "rounds": 3,
    "sites": 4,
    "seconds": 1.5,
    "claim": "words",
}


@pytest.fixture
def form() -> bytes:
    return cells_of(rows_of(study_of(study_table())))[0].form


def ending(monkeypatch: pytest.MonkeyPatch, end: BaseException | dict[str, Any]) -> None:
    def play(*_: Any, **__: Any) -> dict[str, Any]:
        if isinstance(end, BaseException):
            raise end
        return end

    monkeypatch.setattr(player, "play", play)


def under(inner: Exception, outer: Exception) -> Exception:
    """`outer` as it is raised while `inner` is handled."""
    outer.__context__ = inner
    return outer


def test_a_run_that_ended_has_its_figures(form: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending(monkeypatch, SUMMARY)
    found = play_cell(form, tmp_path)
    assert found.status == "completed"
    assert found.metrics == {
        "accuracy": 0.9,
        "pooled_accuracy": 0.95,
        "alone_accuracy": None,
        "epsilon": 2.0,
        "rounds": 3.0,
        "sites": 4.0,
    }
    attacked = {**SUMMARY, "attack": {"sites": 2, "success": 0.4, "base": 0.1, "lift": 0.3, "difference": -0.02}}
    figures = result_of(attacked).metrics
    assert [figures[f"attack_{name}"] for name in ("success", "lift", "difference")] == [0.4, 0.3, -0.02]
    assert found.seconds == 1.5


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_figure_that_is_not_finite_is_a_divergence(value: float) -> None:
    assert result_of({**SUMMARY, "accuracy": value}).status == "diverged"
    assert result_of({**SUMMARY, "privacy": {"epsilon": None}}).metrics["epsilon"] is None


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (Refusal(Code.JOB_INVALID, "Job not played", "it cannot be", "Correct it"), "error"),
        (Refusal(Code.UPDATE_INVALID, "Update not released", "training diverged", "Lower the rate"), "diverged"),
        (Refusal(Code.RUN_FAILED, "Round 1 ended", "sites said: a UPDATE_INVALID, b UPDATE_INVALID", ""), "diverged"),
        (Refusal(Code.RUN_FAILED, "Round 1 ended", "sites said: a SITE_UNREACHABLE", ""), "error"),
    ],
)
def test_a_refusal_is_a_result_with_its_code(
    form: bytes, refusal: Refusal, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, refusal)
    found = play_cell(form, tmp_path)
    assert (found.status, found.code) == (status, refusal.code.value)
    assert found == failure_of(refusal)
    assert found.metrics == {}


def test_a_fault_is_a_result_and_leaves_its_traceback(
    form: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (ZeroDivisionError("secret"), MemoryError(), FileNotFoundError(errno.ENOENT, "gone", "secret")):
        ending(monkeypatch, error)
        found = play_cell(form, tmp_path)
        assert (found.status, found.code) == ("error", "INTERNAL")
        assert "secret" not in found.why
        assert type(error).__name__ in (tmp_path / FAULT).read_text()


FULL = OSError(errno.ENOSPC, "No space left on device", "somewhere")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        under(FULL, Refusal(Code.RUN_FAILED, "Round 1 ended", "a site could not write", "")),
        under(FULL, RuntimeError("while writing")),
        OSError(errno.EROFS, "Read-only file system"),
    ],
    ids=repr,
)
def test_a_disk_that_is_full_is_no_result(
    form: bytes, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ending(monkeypatch, error)
    with pytest.raises(OSError, match=r"space|Read-only"):
        play_cell(form, tmp_path)


def test_a_result_says_nothing_of_time_in_a_table() -> None:
    assert Result(status="completed").seconds == 0.0
    assert "seconds" not in result_of(SUMMARY).metrics

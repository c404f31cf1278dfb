"""Tables of studies: failures count, stale cells are named, gates decide by intervals, rows are compared in pairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import Code, Refusal
from simulations.audits.intervals import Verdict
from simulations.study.cells import Cell, cells_of, rows_of
from simulations.study.comparison import compare
from simulations.study.plan import Study, study_of
from simulations.study.results import Result
from simulations.study.statistics import holm
from simulations.study.store import CELL, RESULT, Store
from simulations.study.sweep import created, missing, planned
from simulations.study.table import Table, table_of
from simulations.study.words import comparison_text, table_text
from tests.simulations.study.fakes import study_table
from tests.worlds import PRIVACY

RATES = "job.training.learning_rate"
Play = Callable[[Cell, int], Result | None]
ACCURACIES = (0.90, 0.92, 0.91, 0.93, 0.89)


def fine(cell: Cell, number: int) -> Result:
    """Higher by some 0.02 at the higher rate, lower by some 0.05 with privacy; seeds move all alike."""
    job = cell.scenario.job
    accuracy = ACCURACIES[number] + (0.02 + number / 1000) * (job.training.learning_rate > 0.25)
    accuracy -= (0.05 + (number - 2) / 1000) * job.privacy.private
    metrics = {"accuracy": accuracy, "pooled_accuracy": 0.99, "alone_accuracy": 0.8}
    return Result(status="completed", metrics={**metrics, "epsilon": 2.001 if job.privacy.private else None})


def ended(status: Any, code: str = "") -> Result:
    return Result(status=status, code=code, why="because")


def filled(folder: Path, play: Play = fine, *, code: str = "code", **changes: Any) -> tuple[Store, Study]:
    """A study whose cells ended as `play` says; None leaves one out."""
    study = study_of(study_table(**{"seeds": {"n": 5, "root": 1}, **changes}))
    store = created(study, folder)
    fill(store, study, play, code)
    return store, study


def fill(store: Store, study: Study, play: Play, code: str) -> None:
    for row in rows_of(study):
        for pair in (row.cells, row.twins):
            for number, cell in enumerate(pair):
                if (result := play(cell, number)) is not None:
                    store.begin(cell.id(code))
                    store.commit(cell.id(code), cell.form, result)


def table(folder: Path, play: Play = fine, **changes: Any) -> Table:
    store, study = filled(folder, play, **changes)
    return table_of(store, study, "code")


def test_a_row_shows_mean_interval_and_number(tmp_path: Path) -> None:
    made = table(tmp_path / "s")
    text = table_text(made)
    assert "91.0 ±2.0 (5)" in text.splitlines()[2]
    assert made.status == "completed"
    row = made.as_dict()["rows"][0]
    assert row["settings"] == {RATES: 0.25}
    assert row["metrics"]["accuracy"]["mean"] == pytest.approx(0.91)
    assert row["failed"]["high"] == pytest.approx(0.4345, abs=1e-4)
    assert json.loads(json.dumps(made.as_dict())) == made.as_dict()
    assert "not private" not in text.splitlines()[0]


def test_a_private_row_has_its_twin_beside_it_and_its_largest_epsilon(tmp_path: Path) -> None:
    arms = {"privacy": {"M1": {"job.privacy": {**PRIVACY["M1"], "noise": "replay"}}}}
    made = table(tmp_path / "s", grid={RATES: [0.25]}, arms=arms)
    assert "not private" in table_text(made).splitlines()[0]
    assert "86.0 ±2.0 (5)" in table_text(made)
    assert "91.0 ±2.0 (5)" in table_text(made)
    assert "2.01" in table_text(made), "never rounded down"
    (row,) = compare(made, "twin").rows
    assert row.verdict == "lower"
    assert row.found is not None
    assert row.found.estimate.mean == pytest.approx(-0.05)


def test_failures_are_shown_and_counted(tmp_path: Path) -> None:
    ways = (ended("diverged", "UPDATE_INVALID"), ended("error", "PROCESS_FAILED"))

    def play(cell: Cell, number: int) -> Result:
        return ways[number] if number < 2 and cell.scenario.job.training.learning_rate > 0.3 else fine(cell, number)

    made = table(tmp_path / "s", play)
    line = table_text(made).splitlines()[3]
    assert "(3/5)" in line
    assert "3 completed, 1 diverged, 1 error, PROCESS_FAILED" in line
    assert made.lines[1].failed is not None
    assert made.lines[1].failed.value == 0.4
    row = made.as_dict()["rows"][1]
    assert row["planned"] == 5
    assert [each["code"] for each in row["failures"]] == ["UPDATE_INVALID", "PROCESS_FAILED"]
    assert compare(made).rows[0].found is not None
    assert "40.0 [11.8, 76.9]" in comparison_text(compare(made))


def test_a_row_without_any_figure_is_still_a_row(tmp_path: Path) -> None:
    made = table(tmp_path / "s", lambda cell, number: ended("error", "JOB_INVALID"))
    assert table_text(made).count("- (0/5)") == 2
    assert compare(made).rows[0].verdict == "undecided"
    empty = table(tmp_path / "t", lambda cell, number: None)
    assert empty.status == "incomplete"
    assert "5 missing" in table_text(empty)


@pytest.mark.parametrize(
    ("gate", "verdict"),
    [
        ({"accuracy.low": ">= 0.85"}, Verdict.PASS),
        ({"accuracy.low": ">= 0.90"}, Verdict.INCONCLUSIVE),
        ({"accuracy.mean": ">= 0.90"}, Verdict.PASS),
        ({"accuracy.low": ">= 0.99"}, Verdict.FAIL),
        ({"accuracy.high": "<= 0.96"}, Verdict.PASS),
        ({"accuracy.high": "<= 0.5"}, Verdict.FAIL),
        ({"failed.high": "<= 0.5"}, Verdict.PASS),
        ({"failed.high": "<= 0.1"}, Verdict.INCONCLUSIVE),
        ({"epsilon.high": "<= 3"}, Verdict.INCONCLUSIVE),
        ({"accuracy.low": ">= 0.85", "accuracy.mean": ">= 0.99"}, Verdict.FAIL),
    ],
)
def test_gates_decide_by_the_whole_interval(tmp_path: Path, gate: dict[str, str], verdict: Verdict) -> None:
    made = table(tmp_path / "s", gates=gate)
    assert made.verdict is verdict
    assert table_text(made).endswith(f"gates: {verdict.value}\n")


@pytest.mark.parametrize("lost", [None, ended("diverged"), ended("error", "INTERNAL")])
def test_a_row_that_is_not_whole_never_passes(tmp_path: Path, lost: Result | None) -> None:
    """Must not: pass on the seeds that happened to work. Must: still fail where all that is known is too low."""

    def play(cell: Cell, number: int) -> Result | None:
        return fine(cell, number) if number else lost

    assert table(tmp_path / "s", play, gates={"accuracy.low": ">= 0.5"}).verdict is Verdict.INCONCLUSIVE
    assert table(tmp_path / "t", play, gates={"accuracy.low": ">= 0.99"}).verdict is Verdict.FAIL


def test_cells_of_other_code_are_shown_as_stale_and_pass_no_gate(tmp_path: Path) -> None:
    store, study = filled(tmp_path / "s", code="old", gates={"accuracy.low": ">= 0.5"})
    assert table_of(store, study, "old").verdict is Verdict.PASS
    now = table_of(store, study, "new")
    assert (now.status, now.verdict) == ("stale", Verdict.INCONCLUSIVE)
    assert "5 stale" in table_text(now)
    assert "resume" in table_text(now)
    assert len(missing(store, cells_of(rows_of(study)), "new")) == 10
    fill(store, study, lambda cell, number: ended("diverged") if number == 0 else None, "new")
    mixed = table_of(store, study, "new")
    assert mixed.lines[0].counts == {"completed": 4, "diverged": 1, "error": 0, "missing": 0, "stale": 4}
    assert table_of(store, study, "old").status == "completed", "results of other code stay"


@pytest.mark.parametrize("file", [CELL, RESULT])
def test_a_result_that_was_changed_or_cut_is_none(tmp_path: Path, file: str) -> None:
    store, study = filled(tmp_path / "s")
    cells = cells_of(rows_of(study))
    places = [store.cells / cell.id("code")[:32] / file for cell in cells[:3]]
    places[0].write_bytes(places[0].read_bytes()[:-20])
    places[1].write_bytes(places[1].read_bytes().replace(b"0.9", b"0.8").replace(b'"rounds":40', b'"rounds":41'))
    places[2].unlink()
    assert missing(store, cells, "code") == cells[:3]
    assert table_of(store, study, "code").lines[0].counts["missing"] == 2


def test_a_result_under_the_name_of_another_cell_is_none(tmp_path: Path) -> None:
    store, study = filled(tmp_path / "s")
    one, two = (store.cells / cell.id("code")[:32] for cell in cells_of(rows_of(study))[:2])
    (two / RESULT).write_bytes((one / RESULT).read_bytes())
    (two / CELL).write_bytes((one / CELL).read_bytes())
    assert len(missing(store, cells_of(rows_of(study)), "code")) == 1


def test_rows_are_compared_over_the_seeds_they_share(tmp_path: Path) -> None:
    def play(cell: Cell, number: int) -> Result:
        gone = number == 4 and cell.scenario.job.training.learning_rate == 0.25
        return ended("diverged") if gone else fine(cell, number)

    made = table(tmp_path / "s", play)
    for baseline in ("1", f"{RATES}=0.25"):
        (row,) = compare(made, baseline).rows
        assert row.found is not None
        assert (row.line.number, row.found.estimate.n, row.verdict) == (2, 4, "higher")
        assert row.found.estimate.mean == pytest.approx(0.0215)
    text = comparison_text(compare(made))
    assert "+2.1 ±0.2 (4)" in text or "+2.2 ±0.2 (4)" in text
    (other,) = compare(made, "2").rows
    assert other.verdict == "lower"
    assert [row.verdict for row in compare(made, "pooled").rows] == ["lower", "lower"]
    assert [row.verdict for row in compare(made, "alone").rows] == ["higher", "higher"]


def test_many_rows_are_corrected_together(tmp_path: Path) -> None:
    """Must: hold Holm's steps over all rows. Must not: call one of many rows better by chance alone."""

    def play(cell: Cell, number: int) -> Result:
        rate = cell.scenario.job.training.learning_rate
        wobble = 0.01 * ((number * round(100 * rate)) % 3 - 1)
        accuracy = ACCURACIES[number] + (rate > 0.25) * (0.008 + wobble / 2)
        return Result(status="completed", metrics={"accuracy": accuracy})

    rates = [0.25, *(0.26 + i / 100 for i in range(6))]
    made = compare(table(tmp_path / "s", play, grid={RATES: rates}))
    raw = [row.found.p or 0.0 for row in made.rows if row.found]
    adjusted = [row.adjusted for row in made.rows]
    assert adjusted == holm(raw)
    assert min(raw) < 0.05
    assert {row.verdict for row in made.rows} == {"undecided"}


@pytest.mark.parametrize("asked", [("7", "accuracy"), ("rate=3", "accuracy"), (f"{RATES}=9", "accuracy")])
def test_a_baseline_that_is_not_there_is_refused(tmp_path: Path, asked: tuple[str, str]) -> None:
    with pytest.raises(Refusal) as found:
        compare(table(tmp_path / "s"), *asked)
    assert found.value.code is Code.CONFIG_INVALID


def test_only_known_metrics_are_compared(tmp_path: Path) -> None:
    made = table(tmp_path / "s")
    with pytest.raises(Refusal, match="the nearest is 'accuracy'"):
        compare(made, "1", "acuracy")
    with pytest.raises(Refusal, match="accuracy alone"):
        compare(made, "pooled", "epsilon")


def test_columns_are_called_by_what_tells_them_apart(tmp_path: Path) -> None:
    grid = {RATES: [0.25], "job.privacy.noise": ["system", "replay"], "world.partition.sites": [4], "job.rounds": [3]}
    head = table_text(table(tmp_path / "s", grid=grid)).splitlines()[0].split()
    assert head[:5] == ["row", "learning_rate", "noise", "sites", "rounds"]


CURVE = ((1.0, 0.5), (2.0, 0.86), (4.0, 0.84), (5.0, 0.93))


def clocked(cell: Cell, number: int) -> Result:
    """A world with a clock; its second seed never comes near the target."""
    figures = {"hours": 5.0 + number, "rounds": 4.0, "late": 0.25, "slow_weight": 0.5, "slow_accuracy": 0.7}
    curve = CURVE[:1] if number == 1 else CURVE
    return Result(status="completed", metrics={"accuracy": 0.9, **figures}, curve=curve)


def test_a_world_with_a_clock_shows_its_hours_and_when_the_target_was_reached(tmp_path: Path) -> None:
    """Must: count a seed that never reached it as one without a figure. Must not: show a clock that there is not."""
    store, study = filled(tmp_path / "s", clocked, target=0.85)
    shown = table_text(table_of(store, study, "code"))
    head, _, row = shown.splitlines()[:3]
    for name in ("hours", "rounds", "to target", "late", "slow weight", "slow accuracy"):
        assert name in head
    assert "2 ±0 (4/5)" in row
    assert "25.0 ±0.0 (5)" in row
    assert "85 % accuracy" in shown
    told = table_of(store, study, "code").as_dict()["rows"][0]["metrics"]
    assert told["hours_to_target"]["mean"] == 2.0
    assert compare(table_of(store, study, "code"), metric="late").rows[0].found is not None
    other = table(tmp_path / "t")
    assert "late" not in table_text(other)
    assert "hours" not in other.as_dict()["rows"][0]["metrics"]


@pytest.mark.parametrize("target", [0, 1.5, "high"])
def test_a_target_is_an_accuracy(target: Any) -> None:
    with pytest.raises(Refusal):
        study_of(study_table(target=target))


def test_a_folder_that_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as found:
        planned(Store(tmp_path))
    assert found.value.code is Code.FILE_MISSING
    store, _ = filled(tmp_path / "s")
    (store.folder / "study.json").write_text("{")
    with pytest.raises(Refusal) as found:
        planned(store)
    assert found.value.code is Code.DATA_INVALID
    with pytest.raises(Refusal) as found:
        filled(tmp_path / "s")
    assert found.value.code is Code.FILE_EXISTS

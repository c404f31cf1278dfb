"""Studies from the command line, with real worlds: interrupted, resumed, shown, compared."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

from common.config import plain
from simulations.door import app
from simulations.engines.catalogue import EngineName
from simulations.play import play
from simulations.study.cells import cells_of, rows_of
from simulations.study.plan import STUDIES, found_study, read_study
from simulations.study.results import result_of
from simulations.study.store import Store
from simulations.study.sweep import created, planned, real, sweep
from simulations.study.table import table_of
from simulations.study.words import table_text
from tests.simulations.study.fakes import study_table

GRID = {"world.partition": [{"kind": "even", "sites": 3, "minimum": 20}, {"kind": "even", "sites": 2, "minimum": 20}]}
LARGE = ("byzantine", "deadline", "epsilons", "mnist-votes")  # every row of these: `make studies`
CHANGES = {"job.rounds": 2, "job.aggregation.quorum": 2, "world.unmaskers": 2, "job.training.learning_rate": 0.5}


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "study.toml"
    seeds = {"n": 2, "root": 1}
    path.write_text(tomli_w.dumps(study_table(**{"grid": GRID, "changes": CHANGES, "seeds": seeds, **changes})))
    return path


def told(*words: str | Path, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert result.exit_code == code, result.output
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def shown(*words: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.mark.story
@pytest.mark.timeout(600)
def test_a_real_study_is_interrupted_resumed_shown_and_compared(tmp_path: Path) -> None:
    """Must: end with 130 on Ctrl-C, keep whole cells, and come to what each scenario gives by itself."""
    path, out = written(tmp_path, gates={"accuracy.low": ">= 0.01", "failed.mean": "<= 0"}), tmp_path / "out"
    command = [Path(sys.executable).parent / "hushfed", "simulate", "run", path, "--out", out, "--workers", "1"]
    process = subprocess.Popen([*map(str, command), "--json"], stdout=subprocess.PIPE, text=True)
    store, end = Store(out), time.monotonic() + 300
    while not [path for path in store.cells.glob("*/result.json") if path.parent.suffix != ".part"]:
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert process.stdout is not None
    assert json.loads(process.stdout.read().splitlines()[-1]) == {"status": "interrupted"}
    assert [place.suffix for place in store.cells.iterdir() if place.suffix] == []
    first = told("table", out, code=2)
    assert (first["status"], first["verdict"]) == ("incomplete", "INCONCLUSIVE")

    resumed = told("resume", out, "--workers", "2")
    assert resumed["cells"] == 4
    assert 0 < resumed["played"] < 4
    table = told("table", out)
    assert table == {name: value for name, value in resumed.items() if name not in ("study", "cells", "played")}
    assert (table["status"], table["verdict"]) == ("completed", "PASS")
    assert told("resume", out)["played"] == 0
    text = shown("table", out)
    assert "kind=even sites=3 minimum=20" in text
    assert "4 completed" not in text
    assert "2 completed" in text
    assert told("compare", out)["rows"][0]["row"] == 2
    assert told("compare", out, "--baseline", "pooled")["baseline"] == "pooled"
    assert "less baseline" in shown("compare", out, "--baseline", "2")

    cell = cells_of(rows_of(planned(store)))[0]
    alone = result_of(play(cell.scenario, tmp_path / "alone", engine=EngineName.LOOP))
    found = json.loads(next(store.cells.glob(f"{table['rows'][0]['ids'][0][:32]}/result.json")).read_text())
    assert found["result"]["metrics"] == plain(alone.metrics)
    kept = store.cells / table["rows"][0]["ids"][0][:32] / "run"
    assert {"run.json", "report.html", "model.safetensors"} <= {each.name for each in kept.iterdir()}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "STUDY", "--set", "job.round=3"), "CONFIG_INVALID"),
        (("run", "STUDY", "--set", "world.seed=3"), "CONFIG_INVALID"),
        (("run", "STUDY", "--engine", "warp"), "CONFIG_INVALID"),
        (("run", "clinics", "--workers", "2"), "CONFIG_INVALID"),
        (("run", "STUDY", "--out", "TAKEN"), "FILE_EXISTS"),
        (("table", "TAKEN"), "FILE_MISSING"),
        (("resume", "TAKEN"), "FILE_MISSING"),
        (("compare", "DONE", "--baseline", "9"), "CONFIG_INVALID"),
        (("compare", "DONE", "--metric", "acuracy"), "CONFIG_INVALID"),
    ],
)
def test_what_cannot_be_done_is_refused_and_writes_nothing(words: tuple[str, ...], code: str, tmp_path: Path) -> None:
    study = written(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    created(read_study(study), tmp_path / "done")
    names = {"STUDY": study, "TAKEN": tmp_path / "taken", "DONE": tmp_path / "done"}
    before = sorted(tmp_path.rglob("*"))
    given = [str(names.get(word, word)) for word in words]
    given += ["--out", str(tmp_path / "new")] if words[0] == "run" and "--out" not in words else []
    assert told(*given, code=3)["refusal"]["code"] == code
    assert sorted(tmp_path.rglob("*")) == before


def test_a_study_may_grow_and_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: play new rows only. Must not: lose the plan of before when the new one is refused."""
    from simulations.study import door
    from simulations.study.sweep import Sweep
    from tests.simulations.study.fakes import PLAYER

    monkeypatch.setattr(door, "real", lambda: Sweep(PLAYER, "code"))
    monkeypatch.setattr(door, "code_digest", lambda: "code")
    out = tmp_path / "out"
    assert told("run", written(tmp_path), "--out", out, "--workers", "1")["played"] == 4
    assert told("resume", out, "--study", written(tmp_path, seeds={"n": 3, "root": 1}))["played"] == 2
    assert told("table", out)["rows"][0]["planned"] == 3
    wrong = written(tmp_path, grid={"job.rounds": [0, 1]})
    assert told("resume", out, "--study", wrong, code=3)["refusal"]["code"] == "CONFIG_INVALID"
    assert told("table", out)["status"] == "completed"
    assert told("run", written(tmp_path, gates={"accuracy.low": ">= 0.999"}), "--out", tmp_path / "b", code=1)
    assert "gates: FAIL" in shown("table", tmp_path / "b", code=1)


def _short(arms: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """The first and the last arm of each axis, with few rounds where they say how many."""
    few = {"job.rounds": 3}
    return {
        axis: {
            name: {**each[name], **{p: few[p] for p in few if p in each[name]}}
            for name in (*each,)[:: max(1, len(each) - 1)]
        }
        for axis, each in arms.items()
    }


@pytest.mark.story
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [name for name in STUDIES if name not in LARGE])
def test_every_row_of_a_packaged_study_is_played(name: str, tmp_path: Path) -> None:
    """With one seed and few rounds, which is enough to see that each of its settings is understood."""
    every_row_is_played(name, tmp_path)


@pytest.mark.study
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", LARGE)
def test_every_row_of_a_large_study_is_played(name: str, tmp_path: Path) -> None:
    every_row_is_played(name, tmp_path)


def every_row_is_played(name: str, tmp_path: Path) -> None:
    study = read_study(found_study(Path(name)), ["job.rounds=3"])
    study = replace(study, seeds=replace(study.seeds, n=1), arms=_short(study.arms))
    store, how = created(study, tmp_path / "out"), real()
    sweep(store, cells_of(rows_of(study)), how, workers=2)
    found = table_of(store, study, how.code)
    assert found.status == "completed"
    for line in found.lines:
        assert line.counts["completed"] == 1, table_text(found)
        assert line.figures("pooled_accuracy")[0] > 0.6
        assert line.figures("twin_accuracy")

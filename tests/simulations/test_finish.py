"""From the coordinator's result to the run directory that people read: all of it, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import simulations.finish
from common.errors import Code, Refusal
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from simulations.door import app
from simulations.finish import finish, refuse_to_overwrite
from simulations.scenario import Scenario
from simulations.world import Finished, simulate
from tests.worlds import scenario

PARTS = {"run.json", "rounds.jsonl", "model.safetensors", "ledgers", "audit.json", "report.html", "card.md"}
PRINTED = {
    "status",
    "run",
    "sites",
    "rounds",
    "accuracy",
    "pooled_accuracy",
    "alone_accuracy",
    "privacy",
    "seconds",
    "seconds_per_round",
    "report",
}


def strict(path: Path) -> Any:
    """JSON without NaN and Infinity, which other readers do not know."""
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{path.name} holds {name}"))


@pytest.fixture(scope="module", params=["M2", "none"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, Finished]:
    made = scenario(request.param, {"job.privacy.noise": "system"})
    return made, simulate(made, tmp_path_factory.mktemp("finish") / "world")


def finished(world: tuple[Scenario, Finished], out: Path) -> dict[str, Any]:
    made, done = world
    return finish(made, done, out)


def test_a_run_directory_has_every_part_of_the_contract(world: tuple[Scenario, Finished], tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = finished(world, out)
    assert {path.name for path in out.iterdir()} >= PARTS
    assert set(told) >= PRINTED
    assert told["status"] == "completed"
    assert (told["sites"], told["rounds"]) == (3, 3)
    for key in ("accuracy", "pooled_accuracy", "alone_accuracy"):
        assert 0.4 < told[key] <= 1
    mode = world[0].job.privacy.mode
    assert told["privacy"]["mode"] == mode
    if mode == "none":
        assert told["privacy"]["epsilon"] is None
    else:
        assert 0 < told["privacy"]["epsilon"] <= 8
        assert told["privacy"]["unit"] == "record"
    table = strict(out / "run.json")
    assert table["accuracy"] == told["accuracy"]
    assert table["seeds"] == {"job": 1, "world": 1}
    assert set(table["baselines"]["alone"]) == {"clinic-a", "clinic-b", "clinic-c"}
    strict(out / "audit.json")


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "out", tmp_path / "file" / "deep" / "out"):
        with pytest.raises(Refusal) as refused:
            refuse_to_overwrite(out)
        assert refused.value.code is Code.FILE_UNWRITABLE
    refuse_to_overwrite(tmp_path / "new" / "deep" / "out")


def test_the_exact_curve_is_written_beside_what_the_coordinator_knew(
    world: tuple[Scenario, Finished], tmp_path: Path
) -> None:
    told = finished(world, tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out" / "rounds.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [1, 2, 3]
    assert all(0 <= row["exact_accuracy"] <= 1 for row in rows)
    assert rows[-1]["exact_accuracy"] == told["accuracy"]


def test_what_is_added_is_signed_with_the_rest(world: tuple[Scenario, Finished], tmp_path: Path) -> None:
    """Must: pass the audit, with the figure that it recomputed. Must not: hold after anything was changed."""
    told = finished(world, tmp_path / "out")
    found = strict(tmp_path / "out" / "audit.json")["privacy"]
    assert (found["verified"], found["problems"]) == (True, [])
    assert told["privacy"]["epsilon"] == found["epsilon"]
    facts = strict(tmp_path / "out" / "run.json")
    for change in ({"versions": {}}, {"accuracy": 0.99}, {"baselines": None}):
        (tmp_path / "out" / "run.json").write_text(json.dumps(facts | change))
        again = audit(read_run(tmp_path / "out"))
        assert (again["problems"], again["epsilon"]) == (["RECORD_MISMATCH"], None)


def test_a_folder_that_holds_anything_is_refused_before_any_work(tmp_path: Path) -> None:
    refuse_to_overwrite(tmp_path / "new")
    refuse_to_overwrite(tmp_path)
    (tmp_path / "mine").write_text("precious")
    for taken in (tmp_path, tmp_path / "mine"):
        with pytest.raises(Refusal) as refused:
            refuse_to_overwrite(taken)
        assert refused.value.code is Code.FILE_EXISTS


def test_a_failure_in_the_middle_leaves_no_directory(
    world: tuple[Scenario, Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulations.finish, "build", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        finished(world, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.undo()
    finished(world, tmp_path / "out")
    assert (tmp_path / "out" / "run.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_command_runs_a_scenario_and_prints_its_summary(tmp_path: Path) -> None:
    path = Path(simulations.finish.__file__).parent / "examples" / "clinics.toml"
    out = tmp_path / "run"
    arguments = ["run", str(path), "--set", "job.rounds=3", "--out", str(out), "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert set(told) >= PRINTED
    assert told["run"] == str(out)
    assert Path(told["report"]).exists()
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 3
    assert json.loads(again.stdout.splitlines()[-1])["refusal"]["code"] == "FILE_EXISTS"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["none.toml"], "FILE_MISSING"),
        (["SCENARIO", "--engine", "warp"], "CONFIG_INVALID"),
        (["SCENARIO", "--set", "job.round=3"], "CONFIG_INVALID"),
    ],
)
def test_what_cannot_be_run_is_refused_in_json(arguments: list[str], code: str, tmp_path: Path) -> None:
    path = str(Path(simulations.finish.__file__).parent / "examples" / "clinics.toml")
    given = [path if argument == "SCENARIO" else argument for argument in arguments]
    result = CliRunner().invoke(app, ["run", *given, "--out", str(tmp_path / "out"), "--json"])
    assert result.exit_code == 3
    assert json.loads(result.stdout.splitlines()[-1])["refusal"]["code"] == code
    assert not (tmp_path / "out").exists()

"""hushfed site: a keeper learns what was spent and which line of the policy decides, without disturbing the agent."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

from client.door import app
from client.holding import ledger_path
from client.policy import Policy
from client.site import read_site
from common.config import plain, read
from common.messages import Reported
from tests.worlds import Desk, close, desk_of, scenario

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """Clinic-a has answered one order; its ledger is still open in its session."""
    made = desk_of(scenario("M2"), tmp_path_factory.mktemp("door") / "world")
    assert isinstance(made.ask(1, made.work_order()), Reported)
    yield made
    close(made)


def told(*arguments: object) -> tuple[int, dict[str, Any]]:
    """Exit code and the last line of a command with --json."""
    result = RUNNER.invoke(app, [*map(str, arguments), "--json"])
    return result.exit_code, json.loads(result.stdout.splitlines()[-1])


def job_file(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    def dense(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: dense(inner) for name, inner in value.items() if inner is not None}
        return [dense(inner) for inner in value] if isinstance(value, list) else value

    path = folder / "job.toml"
    path.write_text(tomli_w.dumps(dense(plain(scenario("M2", changes).job))))
    return path


def test_the_budget_is_recomputed_while_the_agent_holds_the_ledger(desk: Desk) -> None:
    code, found = told("budget", desk.federation.sites[0].settings)
    assert code == 0
    (held,) = found["datasets"]
    assert held["dataset"] == "clinics"
    assert held["entries"] == 3
    assert held["head"] == desk.sessions[1]._holdings.ledger("clinics").head.hex()
    assert held["limit"] == 8.0
    assert 0 < held["training"] < 8
    assert held["holdout"] == 0.0
    assert held["left"] == pytest.approx(8.0 - held["training"])
    assert held["epsilon"] is None  # its noise can be repeated
    assert held["void"]


def test_a_site_that_never_worked_has_spent_nothing(desk: Desk) -> None:
    code, found = told("budget", desk.federation.sites[1].settings)
    assert code == 0
    assert found["datasets"][0]["epsilon"] == 0.0
    assert found["datasets"][0]["left"] == 8.0


def test_a_site_without_processes_is_away(desk: Desk) -> None:
    code, found = told("status", desk.federation.sites[0].settings)
    assert code == 1
    assert found["status"] == "away"
    assert found["site"] == "clinic-a"


def test_an_allowed_job_is_explained(desk: Desk, tmp_path: Path) -> None:
    code, found = told("explain", job_file(tmp_path), "--site", desk.federation.sites[0].settings)
    assert code == 0
    assert found["status"] == "allowed"
    assert found["deciding"] is None
    assert all(line["allowed"] for line in found["lines"])


def test_a_job_that_the_budget_does_not_afford_is_explained_with_what_is_left(desk: Desk, tmp_path: Path) -> None:
    """Three rounds with two spare ones cost 8: after one of them three are left, but not eight."""
    settings = desk.federation.sites[0].settings
    code, found = told("explain", job_file(tmp_path), "--site", settings)
    assert code == 0
    assert found["lines"][-1]["rule"].startswith("[privacy] max_epsilon = 8.0, of which ")
    assert found["min_records"] == read(Policy, settings.parent / "policy.toml").data.min_records
    code, found = told("explain", job_file(tmp_path, {"job.privacy.spare_rounds": 0}), "--site", settings)
    assert code == 1
    assert found["deciding"]["code"] == "BUDGET_EXHAUSTED"
    assert float(found["deciding"]["asked"].split()[0]) > 8


def test_a_changed_limit_is_explained_to_need_a_reason(desk: Desk, tmp_path: Path) -> None:
    settings = desk.federation.sites[0].settings
    file = Path(read_site(settings).policy)
    before = file.read_text()
    table = plain(read(Policy, file))
    job = job_file(tmp_path)
    try:
        for reason, allowed in (("", False), ("the board agreed to more", True)):
            table["privacy"] |= {"max_epsilon": 20.0, "reason": reason}
            file.write_text(tomli_w.dumps(table))
            code, found = told("explain", job, "--site", settings)
            assert code == (0 if allowed else 1)
            if not allowed:
                assert found["deciding"]["rule"] == "[privacy] reason = ''"
                assert found["deciding"]["code"] == "POLICY_PRIVACY"
    finally:
        file.write_text(before)


def test_a_refused_job_is_explained_by_the_line_that_decides(desk: Desk, tmp_path: Path) -> None:
    path = job_file(tmp_path, {"job.privacy.epsilon": 9.0})
    code, found = told("explain", path, "--site", desk.federation.sites[0].settings)
    assert code == 1
    assert found["status"] == "refused"
    assert found["deciding"]["rule"] == "[privacy] max_epsilon = 8.0"
    assert found["deciding"]["asked"] == "9.0"
    assert found["deciding"]["code"] == "POLICY_PRIVACY"


def test_a_missing_file_is_a_refusal_in_json(tmp_path: Path) -> None:
    code, found = told("budget", tmp_path / "site.toml")
    assert code == 3
    assert found["refusal"]["code"] == "FILE_MISSING"
    assert set(found["refusal"]) == {"code", "what", "why", "do"}


CHANGES = {
    "a charge": "UPDATE lines SET body = CAST(replace(body, '\"steps\":1', '\"steps\":0') AS BLOB)",
    "text for bytes": "UPDATE lines SET body = CAST(body AS TEXT)",
    "a line less": "DELETE FROM lines WHERE seq = 1",
    "a signature": "UPDATE lines SET signature = zeroblob(64)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_ledger_is_refused(change: str, tmp_path: Path) -> None:
    made = desk_of(scenario("M2"), tmp_path / "world")
    assert isinstance(made.ask(1, made.work_order()), Reported)
    close(made)
    settings = made.federation.sites[0].settings
    path = ledger_path(read_site(settings), read_site(settings).data[0])
    with sqlite3.connect(path) as connection:
        connection.execute(CHANGES[change])
    code, found = told("budget", settings)
    assert code == 3
    assert found["refusal"]["code"] == "LEDGER_TAMPERED"

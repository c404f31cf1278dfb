"""A site that refuses to train says so to its keeper, not only to its log."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from client.door import app
from client.holding import ledger_path
from client.refused import LastRefusal, agent_of
from client.site import read_site
from client.up import agent_status
from client.watch import Watch
from common.errors import Code, Refusal
from common.status_file import forget_process, last_refusal, read_status, write_refusal, write_status
from tests.worlds import Desk, close, code_of, desk_of, scenario, under

FIELDS = {"isolation": "netns", "pid": os.getpid()}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = desk_of(scenario("M2"), tmp_path_factory.mktemp("refused") / "world")
    yield made
    close(made)


@pytest.fixture
def status(desk: Desk) -> Iterator[Path]:
    """The status file of clinic-a's agent, which is this process."""
    path = agent_status(Path(read_site(desk.federation.sites[0].settings).state) / "run")
    write_status(path, FIELDS)
    part = LastRefusal(path, FIELDS)
    logging.getLogger().addHandler(part)
    yield path
    logging.getLogger().removeHandler(part)


def shown(desk: Desk) -> dict[str, Any]:
    """What `site status` says of the agent."""
    result = CliRunner().invoke(app, ["status", str(desk.federation.sites[0].settings), "--json"])
    agent: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])["agent"]
    return agent


def test_an_order_that_is_refused_is_told_whole_to_the_keeper(
    desk: Desk, status: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Must: code, what, why, do and when, and one line on the terminal. Must not: repeat it, or lose the rest."""
    session, watch = desk.sessions[1], Watch(status)
    watch()
    assert capsys.readouterr().err == ""
    assert "last_refusal" not in shown(desk)
    policy = session._policy.now
    strict = replace(policy, privacy=replace(policy.privacy, max_epsilon=1.0))
    monkeypatch.setattr(session, "_policy", under(strict))
    for _ in range(2):
        assert code_of(desk.ask(1, desk.work_order())) == "POLICY_PRIVACY"
        watch()
    agent = shown(desk)
    assert {name: agent[name] for name in FIELDS} == FIELDS
    refusal = agent["last_refusal"]
    assert refusal["code"] == "POLICY_PRIVACY"
    assert refusal.keys() == {"code", "what", "why", "do", "when"}
    assert all(refusal.values())
    (line,) = capsys.readouterr().err.splitlines()
    assert "refused POLICY_PRIVACY: " in line
    assert refusal["why"] in line


def test_a_fault_is_its_name_and_nothing_else(
    desk: Desk, status: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Must not: write the text of an exception, which may quote a record."""

    def fail(*_: object) -> None:
        raise KeyError("patient 17")

    monkeypatch.setattr(desk.sessions[1], "_answer", fail)
    assert code_of(desk.ask(1, desk.work_order())) == "INTERNAL"
    assert read_status(status)["last_refusal"]["code"] == "INTERNAL"
    assert "patient" not in status.read_text()
    assert "patient 17" in caplog.text


def test_a_ledger_that_is_gone_hides_nothing_else(desk: Desk, status: Path) -> None:
    """Must: show the state of the site with the reason why its budget is unknown. Must not: call it sound."""
    site = desk.federation.sites[0]
    desk.ask(1, desk.work_order())
    settings = read_site(site.settings)
    ledger = ledger_path(settings, settings.dataset("clinics"))
    ledger.rename(ledger.with_suffix(".away"))
    try:
        result = CliRunner().invoke(app, ["status", str(site.settings), "--json"])
    finally:
        ledger.with_suffix(".away").rename(ledger)
    found = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert found["agent"]["pid"] == FIELDS["pid"]
    (row,) = found["budget"]
    assert (row["dataset"], row["refusal"]["code"]) == ("clinics", "LEDGER_ROLLED_BACK")


def test_only_what_ends_an_order_counts(status: Path) -> None:
    """Must not: take a refusal that somebody else overcame, or a line without one, for the site's answer."""
    logging.getLogger("client.session").warning("nothing is wrong")
    try:
        raise Refusal(Code.E_SET, "what", "why", "do")
    except Refusal as refusal:
        logging.getLogger("client.custody").warning("%s", refusal)
    assert read_status(status) == FIELDS


def test_an_agent_that_ended_with_a_refusal_still_says_it(tmp_path: Path) -> None:
    """Must: keep the word of an agent that will not run. Must not: call one that was killed alive."""
    path = tmp_path / "agent.json"
    assert agent_of(path) == {}
    write_refusal(path, Refusal(Code.KEYS_LOCKED, "what", "why", "do"))
    assert agent_of(path)["last_refusal"]["code"] == "KEYS_LOCKED"
    assert agent_of(path)["last_refusal"]["when"] > 0
    write_status(path, FIELDS | {"pid": 2**22 + 1})
    assert agent_of(path) == {}


def test_what_was_refused_last_outlives_the_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Must: be shown of an agent that is gone, and after a new start. Must not: be said anew, or hide a newer one."""
    path = tmp_path / "agent.json"
    refused = {"code": "POLICY_TASK", "what": "what", "why": "why", "do": "do", "when": 5.0}
    write_status(path, FIELDS | {"pid": 2**22 + 1, "last_refusal": refused})
    assert agent_of(path) == {"last_refusal": refused}
    forget_process(path)
    assert read_status(path) == {"last_refusal": refused}
    watch = Watch(path)
    before = last_refusal(read_status(path))
    write_status(path, FIELDS | {"last_refusal": before})  # what a new agent writes first
    watch()
    assert capsys.readouterr().err == ""
    assert agent_of(path) == FIELDS | {"last_refusal": refused}
    newer = refused | {"when": 6.0}
    write_status(path, FIELDS | {"last_refusal": newer})
    for _ in range(2):
        watch()
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert agent_of(path)["last_refusal"] == newer


def test_the_refusal_that_ended_an_agent_is_its_last_one(tmp_path: Path) -> None:
    path = tmp_path / "agent.json"
    write_refusal(path, Refusal(Code.KEYS_LOCKED, "what", "why", "do"))
    forget_process(path)
    kept = read_status(path)["last_refusal"]
    assert (kept["code"], kept["do"]) == ("KEYS_LOCKED", "do")
    assert kept["when"] > 0


@pytest.mark.parametrize("fields", [{}, FIELDS, {"last_refusal": "none"}, {"last_refusal": {"code": "X"}}])
def test_nothing_else_of_an_earlier_agent_stays(tmp_path: Path, fields: dict[str, Any]) -> None:
    path = tmp_path / "agent.json"
    write_status(path, fields)
    forget_process(path)
    forget_process(path)
    assert not path.exists()


def test_an_agent_that_starts_takes_over_the_last_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from client import agent, session

    path = tmp_path / "agent.json"
    refused = {"code": "POLICY_TASK", "what": "what", "why": "why", "do": "do", "when": 5.0}
    write_status(path, {"last_refusal": refused})
    monkeypatch.setattr(session, "open_session", lambda site: contextlib.nullcontext(SimpleNamespace(refuse=None)))
    monkeypatch.setattr(agent, "serve", lambda *_: None)
    handlers = list(logging.getLogger().handlers)
    agent._work(tmp_path / "site.toml", tmp_path / "socket", path)
    logging.getLogger().handlers[:] = handlers
    found = read_status(path)
    assert (found["last_refusal"], found["pid"]) == (refused, os.getpid())

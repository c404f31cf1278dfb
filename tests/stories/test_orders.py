"""Orders that a site refuses: beyond its policy, malformed, or over data that do not fit; nothing is charged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w

from common.config import plain
from common.errors import Refusal
from common.messages import Refused
from deploy.provision import FederationFolder
from simulations.demo import without_nothing
from simulations.provision import settle
from tests.stories.stage import change_policy, command, ledger_of, rehearse, rounds_of, run_of, scenario_of
from tests.worlds import Desk, close, desk_of, scenario

pytestmark = pytest.mark.story

SHORT = scenario_of("job.rounds=2")
SECRET = "4711.0815"  # stands in one cell of a site's table, and must stand nowhere else

BEYOND: list[tuple[str, list[str], tuple[str, dict[str, Any]], str, str]] = [
    ("a larger epsilon", ["job.privacy.epsilon=4.0"], ("privacy", {}), "POLICY_PRIVACY", "[privacy] max_epsilon = 3.0"),
    ("less noise against colluders", ["job.privacy.colluding=0"], ("privacy", {}), "POLICY_PRIVACY",
     "[privacy] colluding = 1"),
    ("a model that is not listed", ['job.model.name="mlp"', "job.model.settings={hidden=[4]}"], ("privacy", {}),
     "POLICY_MODEL", "[models] allow = ['logistic']"),
    ("a column that is not listed", [], ("data", {"columns": ["age", "sex", "bp", "s?", "progression"]}),
     "POLICY_DATA", "[data] columns"),
    ("a data set that is not listed", [], ("data", {"datasets": ["other"]}), "POLICY_DATA", "[data] datasets"),
    ("an order that is not allowed", [], ("tasks", {"allow": ["ledger"]}), "POLICY_TASK", "[tasks] allow = ['ledger']"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "policy", "code", "rule"), [row[1:] for row in BEYOND], ids=[row[0] for row in BEYOND]
)
def test_a_job_beyond_the_policy_is_refused_by_a_line_that_can_be_read(
    tmp_path: Path, changes: list[str], policy: tuple[str, dict[str, Any]], code: str, rule: str
):
    """Must: end the run with the code, and show the deciding line at the site. Must not: charge anything."""
    folder = settle(SHORT, tmp_path / "federation")
    for site in folder.sites:
        change_policy(site, policy[0], **policy[1])
    asked = scenario_of("job.rounds=2", *changes)
    with pytest.raises(Refusal, match=code) as refused:
        rehearse(folder, asked, "run", lambda sites: sites)
    assert refused.value.code == "RUN_FAILED"
    assert not (folder.coordinator / "run" / "result").exists()
    assert [ledger_of(site) for site in folder.sites] == [[], [], [], []]
    job = tmp_path / "job.toml"
    job.write_text(tomli_w.dumps(without_nothing(plain(asked.job))))
    ended, found = command("site", "explain", str(job), "--site", str(folder.sites[0].settings))
    assert (ended, found["status"]) == (1, "refused")
    assert (found["deciding"]["code"], found["deciding"]["rule"][: len(rule)]) == (code, rule)


def test_a_job_without_noise_is_refused_unless_the_policy_says_none(tmp_path: Path):
    folder = settle(SHORT, tmp_path / "federation")
    bare = scenario("none", {"job.aggregation.quorum": 3})
    with pytest.raises(Refusal, match="POLICY_PRIVACY"):
        rehearse(folder, bare, "run", lambda sites: sites)
    assert [ledger_of(site) for site in folder.sites] == [[], [], [], []]
    job = tmp_path / "job.toml"
    job.write_text(tomli_w.dumps(without_nothing(plain(bare.job))))
    ended, found = command("site", "explain", str(job), "--site", str(folder.sites[0].settings))
    assert (ended, found["deciding"]["rule"]) == (1, "[privacy] modes = ['M2']")


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    opened = desk_of(scenario(), tmp_path / "federation")
    yield opened
    close(opened)


def parameters(size: int, *, last: float = 0.0) -> bytes:
    values = np.zeros(size, "<f4")
    values[-1] = last
    return values.tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_order_with_a_parameter_that_is_no_number_is_refused_and_costs_nothing(desk: Desk, value: float):
    reply = desk.ask(1, desk.work_order(parameters=parameters(desk.work.layout.size, last=value)))
    assert isinstance(reply, Refused)
    assert reply.code == "UPDATE_INVALID"
    assert desk.charges(1) == ["OPEN"]


def test_an_order_with_parameters_of_another_length_is_refused_and_costs_nothing(desk: Desk):
    whole = parameters(desk.work.layout.size)
    for sent in (b"", whole[:-4], whole[:-1], whole + b"\0", whole + bytes(4)):
        reply = desk.ask(2, desk.work_order(parameters=sent))
        assert isinstance(reply, Refused)
        assert reply.code == "UPDATE_INVALID"
    assert desk.charges(2) == ["OPEN"]


def test_after_refused_orders_a_sound_one_is_answered(desk: Desk):
    """Must not: use up the aggregation number of an order that was refused."""
    opened = desk.opened()
    refused = desk.work_order(opened=opened, parameters=parameters(desk.work.layout.size, last=np.nan))
    assert isinstance(desk.ask(1, refused), Refused)
    assert not isinstance(desk.ask(1, desk.work_order(opened=opened)), Refused)
    assert desk.charges(1) == ["OPEN", "RESERVE", "SETTLE"]


def without_a_column(text: str) -> str:
    return text.replace("bmi", "weight", 1)


def with_a_text_for_a_number(text: str) -> str:
    rows = text.splitlines()
    cells = rows[7].split(",")
    rows[7] = ",".join([*cells[:2], f"kg{SECRET}", *cells[3:]])
    return "\n".join(rows)


def with_a_ragged_row(text: str) -> str:
    return f"{text.rstrip()}\n{SECRET},{SECRET}\n"


def empty(text: str) -> str:
    return ""


def only_the_header(text: str) -> str:
    return text.splitlines()[0] + "\n"


@pytest.fixture
def spoiled(tmp_path: Path) -> FederationFolder:
    return settle(SHORT, tmp_path / "federation")


@pytest.mark.parametrize(
    "spoil", [without_a_column, with_a_text_for_a_number, with_a_ragged_row, empty, only_the_header]
)
def test_a_table_that_does_not_fit_is_refused_at_the_offer_and_the_others_go_on(
    spoiled: FederationFolder, caplog: pytest.LogCaptureFixture, spoil: Any
):
    """Must: name the place in the site's own log. Must not: show a value there, in a reply, or in the run."""
    site = spoiled.sites[3]
    table = site.root / "data.csv"
    table.write_text(spoil(table.read_text()))
    caplog.set_level(logging.DEBUG)
    rehearse(spoiled, SHORT, "run", lambda sites: sites)
    result = spoiled.coordinator / "run" / "result"
    assert run_of(result)["refusals"] == [{"site": "clinic-d", "code": "DATA_INVALID"}]
    assert [row["sites"] for row in rounds_of(result)] == [["clinic-a", "clinic-b", "clinic-c"]] * 2
    assert {entry.kind.value for entry in ledger_of(site)} <= {"OPEN"}
    assert "DATA_INVALID" in caplog.text
    assert SECRET not in caplog.text
    for path in (path for path in spoiled.coordinator.rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes()

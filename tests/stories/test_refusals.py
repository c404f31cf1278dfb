"""Six sites: one cannot read its table, one runs out of budget, one is given an old ledger; the rest go on."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from common.errors import Refusal
from deploy.provision import SiteFolder
from deploy.up import Federation
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from simulations.demo import Deployment
from tests.stories.stage import (
    Act,
    act,
    alive,
    change_policy,
    in_training,
    kill,
    ledger_file,
    ledger_of,
    perform,
    rehearse,
    rounds_of,
    run_of,
    scenario_of,
    set_up,
    site_of,
    spent_by,
    until,
)

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]

SIX = ("world.partition.sites=6", "world.partition.minimum=30")
BUDGET = 3.0  # of the site that will run out of it
GOOD = ["clinic-a", "clinic-b", "clinic-c"]
ROUNDS = 8
SECRET = "kg4711.0815"  # stands in one cell of a table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Sites that worked for an earlier job; since then a table was spoiled."""
    earlier = scenario_of(*SIX, "job.rounds=2", "job.privacy.epsilon=2.5", "job.privacy.spare_rounds=0")
    made = set_up(earlier, tmp_path_factory.mktemp("federation"), limit=50.0, agent="held_agent")
    rehearse(made.folder, earlier, "earlier", lambda sites: sites)
    table = site_of(made, "clinic-d").root / "data.csv"
    rows = table.read_text().splitlines()
    rows[9] = rows[9].replace(rows[9].split(",")[2], SECRET)
    table.write_text("\n".join(rows))
    return made


@pytest.fixture(scope="module")
def federation(made: Deployment, programs: None) -> Iterator[Federation]:
    with Federation(made.layout) as running:
        yield running


def lower_budget(federation: Federation, site: SiteFolder) -> None:
    """The keeper changes the policy in the middle of a run, and starts the agent anew."""
    old = psutil.Process(federation.pids()[f"agent-{site.name}"])
    change_policy(site, "privacy", max_epsilon=BUDGET, reason="less from now on")
    kill(federation, f"agent-{site.name}")
    until(lambda: not alive(old), 10)
    until(federation._all_ready, 60)


def take_back(federation: Federation, site: SiteFolder, lines: int) -> None:
    """Kill the agent and cut the end of its ledger off, as a disk restored from an old copy would."""
    old = psutil.Process(federation.pids()[f"agent-{site.name}"])
    kill(federation, f"agent-{site.name}")
    until(lambda: not alive(old), 10)
    with sqlite3.connect(ledger_file(site)) as connection:
        connection.execute("DELETE FROM lines WHERE seq > (SELECT max(seq) FROM lines) - ?", (lines,))
        connection.execute("DELETE FROM replies")
    until(federation._all_ready, 60)


@pytest.fixture(scope="module")
def eventful(federation: Federation, made: Deployment) -> Act:
    played = act(
        made, "eventful", scenario_of(*SIX, f"job.rounds={ROUNDS}", "job.privacy.epsilon=2.5", "job.name='eventful'")
    )

    def strike(row: dict[str, Any]) -> None:
        if row["round"] == 2:
            with in_training(site_of(made, "clinic-a")):
                take_back(federation, site_of(made, "clinic-f"), 4)

    def lower() -> None:
        """In the first round, which is held up for it: a later one might begin before the limit is lower."""
        with in_training(site_of(made, "clinic-a")):
            lower_budget(federation, site_of(made, "clinic-e"))

    with ThreadPoolExecutor() as keeper:
        lowered = keeper.submit(lower)
        perform(federation, played, strike)
        lowered.result()
    return played


def refusals(played: Act, site: str) -> list[str]:
    rows = rounds_of(played.state / "result")
    return [each["code"] for row in rows for each in row["refusals"] if each["site"] == site]


def test_every_refusal_has_its_code_and_the_rest_finish(eventful: Act):
    run = run_of(eventful.state / "result")
    assert run["status"] == "completed"
    assert run["refusals"] == [
        {"site": "clinic-d", "code": "DATA_INVALID"},
        {"site": "clinic-e", "code": "BUDGET_EXHAUSTED"},
        {"site": "clinic-f", "code": "LEDGER_ROLLED_BACK"},
    ]
    rows = rounds_of(eventful.state / "result")
    assert [row["round"] for row in rows] == list(range(1, ROUNDS + 1))
    assert all(set(row["sites"]) >= set(GOOD) for row in rows)
    assert rows[-1]["sites"] == GOOD


def test_a_site_takes_part_until_its_budget_is_spent_and_is_then_left_alone(eventful: Act, made: Deployment):
    """Must: refuse once, typed, and stay below its limit. Must not: be asked again."""
    rows = rounds_of(eventful.state / "result")
    took_part = [row["round"] for row in rows if "clinic-e" in row["sites"]]
    assert 1 <= len(took_part) < ROUNDS
    codes = refusals(eventful, "clinic-e")
    assert codes[-1] == "BUDGET_EXHAUSTED"
    assert set(codes[:-1]) <= {"SITE_UNREACHABLE", "AGENT_UNAVAILABLE"}  # while its agent was started anew
    spent = spent_by(ledger_of(site_of(made, "clinic-e")))
    assert 2.5 < spent <= BUDGET


def test_a_table_that_does_not_fit_costs_nothing_and_none_of_its_values_leaves(
    eventful: Act, made: Deployment, federation: Federation
):
    """Must: say so at the offer. Must not: show the value in any log, message, or file of the run."""
    run = run_of(eventful.state / "result")["run"]
    entries = ledger_of(site_of(made, "clinic-d"))
    assert not [entry for entry in entries if entry.facts and entry.facts.run == run]
    assert "DATA_INVALID" in federation.log("agent-clinic-d")
    for folder in (made.layout.folder, made.folder.coordinator):
        for path in (path for path in folder.rglob("*") if path.is_file()):
            assert SECRET.encode() not in path.read_bytes(), path


def test_a_run_that_what_is_left_cannot_pay_is_declined_before_it_begins(
    eventful: Act, federation: Federation, made: Deployment
):
    """Must: leave the site out at the offer, the numbers in its own log. Must not: charge it."""
    before = len(ledger_of(site_of(made, "clinic-e")))
    another = act(made, "another", scenario_of(*SIX, "job.rounds=2", "job.privacy.epsilon=2.5", "job.name='another'"))
    perform(federation, another)
    assert {"site": "clinic-e", "code": "BUDGET_EXHAUSTED"} in run_of(another.state / "result")["refusals"]
    assert len(ledger_of(site_of(made, "clinic-e"))) == before
    assert f"of the site's epsilon of {BUDGET:g}" in federation.log("agent-clinic-e")


def test_an_old_ledger_is_refused_by_what_was_acknowledged_and_shows_in_the_audit(eventful: Act, made: Deployment):
    """Must: refuse with LEDGER_ROLLED_BACK and charge no more. Must not: let the shorter ledger pass for the whole."""
    assert refusals(eventful, "clinic-f")[-1] == "LEDGER_ROLLED_BACK"
    found = audit(read_run(eventful.state / "result"))
    assert {finding["site"] for finding in found["findings"]} == {"clinic-f"}
    assert {"LEDGER_MISSING", "ENTRY_MISSING"} <= set(found["problems"])  # the site gives out no ledger that was cut
    assert found["epsilon"] is None
    assert all("no differential privacy is claimed" in claim for claim in found["claims"])
    assert all(site["recomputed"] > 0 for site in found["sites"] if site["site"] in GOOD)


def test_a_job_beyond_every_policy_ends_with_the_code_and_charges_nothing(federation: Federation, made: Deployment):
    before = [len(ledger_of(site)) for site in made.folder.sites]
    greedy = act(made, "greedy", scenario_of(*SIX, "job.privacy.epsilon=60.0"))
    with pytest.raises(Refusal, match="POLICY_PRIVACY") as refused:
        perform(federation, greedy)
    assert refused.value.code == "RUN_FAILED"
    assert "hushfed site explain" in refused.value.do
    assert not (greedy.state / "result").exists()
    assert [len(ledger_of(site)) for site in made.folder.sites] == before

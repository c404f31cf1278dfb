"""Promises for whole sites over real processes: noise of all sites in one sum, and turns with a coordinator's noise."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.privacy.chain import verify_public
from common.privacy.entries import Entry, Kind
from common.privacy.units import Unit
from deploy.fleet import make_bundle
from deploy.up import Federation
from simulations.demo import Deployment
from tests.stories.stage import (
    Act,
    act,
    change_policy,
    command,
    ledger_of,
    perform,
    reservations,
    rounds_of,
    run_of,
    scenario_of,
    set_up,
)

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]

SITES = tuple(f"clinic-{letter}" for letter in "abcd")
HASTY = "clinic-c"  # asked in every round by `hasty_coordinator`; its turn is in the first
PROMISE = 'unit="site", epsilon=8.0, delta=1e-4, clip=0.5, spare_rounds=1, evaluation_epsilon=3.0, noise="system"'


def job_of(mode: str, rounds: int) -> Any:
    """The smallest job for a promise to whole sites: two of them in each sum, in M5 by turns."""
    own = {"M4": "colluding=1", "M5": "separation=2"}[mode]
    return scenario_of(
        f"job.rounds={rounds}",
        f'job.privacy={{mode="{mode}", {own}, {PROMISE}}}',
        'job.aggregation.strategy="fedavg"',
        "job.aggregation.quorum=2",
        "job.training.local_steps=2",
        "world.unmaskers=2",
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Four sites that allow both modes."""
    federation = set_up(job_of("M4", 2), tmp_path_factory.mktemp("federation"), limit=100.0)
    for site in federation.folder.sites:
        change_policy(site, "privacy", modes=["M4", "M5"])
    return federation


@pytest.fixture(scope="module")
def federation(made: Deployment, programs: None) -> Iterator[Federation]:
    with Federation(made.layout) as running:
        yield running


@pytest.fixture(scope="module")
def shared(federation: Federation, made: Deployment) -> Act:
    """A run in which the noise of all sites adds up in the sum."""
    played = act(made, "shared", job_of("M4", 1))
    perform(federation, played)
    return played


@pytest.fixture(scope="module")
def turns(federation: Federation, made: Deployment, shared: Act) -> Act:
    """A run by turns on the same data, whose coordinator asks one site in every round and is otherwise honest."""
    played = act(made, "turns", job_of("M5", 2))
    settings = {"federation": str(made.folder.coordinator), "job": str(played.job), "state": str(played.state)}
    ended = federation.wait(federation.run(settings, make_bundle("hasty_coordinator:app")), 200)
    assert ended.ending == "completed"
    return played


def audited(played: Act) -> tuple[int, dict[str, Any]]:
    """What an auditor finds who knows the federation's manifest."""
    known = played.folder.coordinator
    return command(
        *("audit", "privacy", str(played.state / "result")),
        *("--manifest", str(known / "manifest.json"), "--governance", str(known / "governance.pub")),
    )


def charges(entries: list[Entry], run: str) -> list[int]:
    """Rounds that a run charged and settled for training."""
    settled = {entry.reserve for entry in entries if entry.kind is Kind.SETTLE}
    return [entry.facts.round for entry in reservations(entries, run) if entry.facts and entry.seq in settled]


def test_a_sum_with_the_noise_of_all_sites_is_paid_for_and_claimed_for_one_site(shared: Act) -> None:
    """Must: end completed, with a charge for the site in every ledger. Must not: ask anybody to trust the server."""
    result = shared.state / "result"
    told = run_of(result)
    assert told["status"] == "completed"
    assert [tuple(row["sites"]) for row in rounds_of(result)] == [SITES]
    assert not (result / "coordinator.jsonl").exists()
    for site in shared.folder.sites:
        entries = ledger_of(site)
        assert charges(entries, told["run"]) == [1]
        plans = [entry.plan for entry in reservations(entries, told["run"]) if entry.plan]
        assert [(plan.mode, plan.unit) for plan in plans] == [("M4", Unit.SITE)]
    code, found = audited(shared)
    assert (code, found["verified"], found["unit"], found["mode"]) == (0, True, "site", "M4")
    assert 0 < found["this_run"] <= found["promised"] == 8.0
    assert len(found["claims"]) == len(SITES)
    for claim in found["claims"]:
        assert "-differential privacy for one site (add or remove one), all its training records together" in claim
        assert "against the server, every user of the model and colluding sites" in claim


def test_a_site_that_is_asked_out_of_turn_refuses_and_is_charged_for_its_turn_alone(turns: Act) -> None:
    """Must: go on with the sites whose turn it is. Must not: charge the one whose turn it is not, or shut it out."""
    rows = rounds_of(turns.state / "result")
    assert [row["refusals"] for row in rows] == [[], [{"site": HASTY, "code": "TURN_TOO_EARLY"}]]
    assert HASTY in rows[0]["sites"]
    assert sorted(name for row in rows for name in row["sites"]) == list(SITES)
    told = run_of(turns.state / "result")
    assert told["status"] == "completed"
    for site in turns.folder.sites:
        assert charges(ledger_of(site), told["run"]) == [row["round"] for row in rows if site.name in row["sites"]]


def test_the_coordinators_ledger_holds_every_sum_and_its_noise_is_claimed_against_users_alone(turns: Act) -> None:
    result = turns.state / "result"
    entries = verify_public((result / "coordinator.jsonl").read_bytes(), turns.folder.manifest.coordinator)
    assert [entry.kind for entry in entries] == [Kind.OPEN, *[Kind.RESERVE, Kind.SETTLE] * 2]
    assert charges(entries, run_of(result)["run"]) == [1, 2]
    code, found = audited(turns)
    assert (code, found["verified"], found["unit"], found["mode"]) == (0, True, "site", "M5")
    assert 0 < found["this_run"] <= found["promised"] == 8.0 < found["epsilon"]  # the ledgers hold two runs
    for claim in found["claims"]:
        assert "-differential privacy for one site (add or remove one), all its training records together" in claim
        assert "no site has two turns within 2 rounds" in claim
        assert "nothing is claimed against the coordinator" in claim


def without_the_last_sum(lines: list[str]) -> list[str]:
    return lines[:-2]


def of_another_round(lines: list[str]) -> list[str]:
    return [line.replace('"round":2', '"round":3') for line in lines]


@pytest.mark.parametrize(
    ("forge", "problem"), [(without_the_last_sum, "ENTRY_MISSING"), (of_another_round, "CHAIN_BROKEN")]
)
def test_a_coordinators_ledger_that_was_changed_fails_the_audit(
    turns: Act, tmp_path: Path, forge: Callable[[list[str]], list[str]], problem: str
) -> None:
    run = Path(shutil.copytree(turns.state / "result", tmp_path / "run"))
    file = run / "coordinator.jsonl"
    file.write_text("".join(forge(file.read_text().splitlines(keepends=True))))
    code, found = command("audit", "privacy", str(run))
    assert (code, found["verified"], found["epsilon"]) == (1, False, None)
    assert problem in {finding["code"] for finding in found["findings"] if finding["site"] == "coordinator"}
    assert all("no differential privacy is claimed" in claim for claim in found["claims"])

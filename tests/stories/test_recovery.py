"""An unmasking site killed between its report and its answer: the round closes with the very sum it would have had."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.privacy.entries import Kind
from server.checkpoints import State
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from simulations.world import simulate
from tests.stories.stage import (
    Act,
    bereaved,
    ledger_of,
    reservations,
    rounds_of,
    run_of,
    scenario_of,
    site_of,
)

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]

SITES = tuple(f"clinic-{letter}" for letter in "abcde")
VICTIM = "clinic-c"
SPARING = scenario_of(
    "job.rounds=2",
    "world.partition.sites=5",
    "world.unmaskers=5",  # all of them: whoever is struck is missed
    "world.lost_max=1",
    "job.aggregation.quorum=4",
    "job.aggregation.deadline_seconds=8.0",
    'job.privacy.noise="replay"',
)


@pytest.fixture(scope="module")
def bereft(tmp_path_factory: pytest.TempPathFactory, programs: None) -> Act:
    """A run of two rounds. In the second, agent and link of one unmasking site are killed when it has reported."""
    return bereaved(SPARING, tmp_path_factory.mktemp("federation"), VICTIM, "lost_agent")


def test_the_round_closes_at_once_with_all_reports_in_it(bereft: Act):
    """Must: count the report of the lost site, and say that it was lost. Must not: spend a second attempt."""
    rows = rounds_of(bereft.state / "result")
    assert [row["sites"] for row in rows] == [list(SITES)] * 2
    assert rows[0]["refusals"] == []
    assert VICTIM in {refusal["site"] for refusal in rows[1]["refusals"]}
    told = run_of(bereft.state / "result")
    assert told["status"] == "completed"
    for site in bereft.folder.sites:
        assert len(reservations(ledger_of(site), told["run"])) == 2


def test_the_sum_is_that_of_the_same_rounds_without_a_loss(bereft: Act, tmp_path: Path):
    """The noise is replayed, so one bit of difference in the sum would show in the model."""
    undisturbed = simulate(SPARING, tmp_path / "world")
    state: State = undisturbed.state
    assert [row["sites"] for row in state.rounds] == [list(SITES)] * 2
    model = (bereft.state / "result" / "model.safetensors").read_bytes()
    assert model == (undisturbed.record / "model.safetensors").read_bytes()


def test_the_lost_site_was_charged_for_what_it_gave_and_the_audit_passes(bereft: Act):
    entries = ledger_of(site_of(bereft, VICTIM))
    settled = {entry.reserve for entry in entries if entry.kind is Kind.SETTLE}
    told = run_of(bereft.state / "result")
    assert {entry.seq for entry in reservations(entries, told["run"])} <= settled
    found = audit(read_run(bereft.state / "result"))
    assert [finding["code"] for finding in found["findings"]] == ["NOISE_REPLAY"]

"""Pairwise masks over real processes: a site killed after its shares are dealt leaves a sum of those that are left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pytest

from common.secagg.pairwise.orders import MaskOrder
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from simulations.local_sites import LocalSites, order_in
from simulations.provision import settle
from tests.stories.stage import (
    Act,
    bereaved,
    ledger_of,
    rehearse,
    reservations,
    rounds_of,
    run_of,
    scenario_of,
)

pytestmark = [pytest.mark.story, pytest.mark.timeout(300)]

SITES = tuple(f"clinic-{letter}" for letter in "abcde")
VICTIM = "clinic-c"
LEFT = [name for name in SITES if name != VICTIM]
PAIRWISE = scenario_of(
    "job.rounds=2",
    'job.aggregation.protocol="bonawitz"',
    "world.partition.sites=5",
    "world.unmaskers=5",  # all sites hold shares
    "world.lost_max=0",
    "job.aggregation.quorum=4",
    "job.aggregation.deadline_seconds=8.0",
    'job.privacy.noise="replay"',
)


@pytest.fixture(scope="module")
def bereft(tmp_path_factory: pytest.TempPathFactory, programs: None) -> Act:
    """A run of two rounds. In the second, agent and link of a site are killed between its shares and its vector."""
    return bereaved(PAIRWISE, tmp_path_factory.mktemp("federation"), VICTIM, "leaving_agent")


def test_the_attempt_goes_on_without_the_site_and_is_not_repeated(bereft: Act) -> None:
    """Must: open the sum of those whose vectors came, in the attempt that was under way, and say who was lost."""
    rows = rounds_of(bereft.state / "result")
    assert [row["sites"] for row in rows] == [list(SITES), LEFT]
    assert rows[0]["refusals"] == []
    assert VICTIM in {refusal["site"] for refusal in rows[1]["refusals"]}
    told = run_of(bereft.state / "result")
    assert told["status"] == "completed"
    for site in bereft.folder.sites:
        assert len(reservations(ledger_of(site), told["run"])) == 2


class Without:
    """All sites, but the victim's vector of the second attempt never comes."""

    def __init__(self, sites: LocalSites):
        self._sites = sites

    def present(self) -> frozenset[int]:
        return self._sites.present()

    def ask(
        self, frames: bytes | Mapping[int, bytes], to: Collection[int], deadline_seconds: float
    ) -> Iterator[tuple[int, bytes | None]]:
        for site, answer in self._sites.ask(frames, to, deadline_seconds):
            order = order_in(frames[site] if isinstance(frames, Mapping) else frames)
            lost = isinstance(order, MaskOrder) and (order.number, SITES[site - 1]) == (1, VICTIM)
            yield site, None if lost else answer


def test_the_sum_is_the_same_as_in_one_process(bereft: Act, tmp_path: Path) -> None:
    """The noise is replayed, so one pair mask that was not taken away, or one bit of it, would show in the model."""
    folder = settle(PAIRWISE, tmp_path / "world")
    state = rehearse(folder, PAIRWISE, "state", Without)
    assert [row["sites"] for row in state.rounds] == [list(SITES), LEFT]
    model = (bereft.state / "result" / "model.safetensors").read_bytes()
    assert model == (folder.coordinator / "state" / "result" / "model.safetensors").read_bytes()


def test_the_lost_site_was_charged_for_what_it_gave_and_the_audit_passes(bereft: Act) -> None:
    """Its vector is in no sum, but it was paid for before anyone could know that."""
    found = audit(read_run(bereft.state / "result"))
    assert [finding["code"] for finding in found["findings"]] == ["NOISE_REPLAY"]

"""Attempts by pairwise masks over sessions: sites may be lost or lie in any stage; both protocols train one model."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from msgspec.structs import replace as altered

from client.session import open_session
from common.errors import Code, Refusal
from common.frames import pack, unpack
from common.identity import Signer
from common.messages import LIMIT, AnyOrder, AnyReply, EnrolOrder, Envelope, Refused, UnmaskOrder, WorkOrder, seal
from common.parameters import flatten
from common.secagg.pairwise.orders import (
    Advertised,
    AdvertiseOrder,
    Agreed,
    AgreeOrder,
    Masked,
    MaskOrder,
    PairDealOrder,
    Revealed,
    RevealOrder,
)
from common.secagg.pairwise.strength import shape_of
from common.work import model_of, work_of
from server.aggregation import Aggregator, Gathered
from server.checkpoints import State
from server.job import prepared
from server.pairwise.attempts import PairwiseAggregator
from server.protocols import sums_of
from simulations.scenario import example, read_scenario
from simulations.world import simulate
from tests.worlds import RUN, Desk, Line, Lines, close, code_of, desk_of, questions_of, scenario, straight

STAGES = (AdvertiseOrder, PairDealOrder, MaskOrder, AgreeOrder, RevealOrder)
ROUNDS = itertools.count(0, 1000)  # where each test begins, so that no round is summed twice
BONAWITZ = {
    "job.aggregation.protocol": "bonawitz",
    "job.aggregation.quorum": 3,
    "world.partition": {"kind": "label", "sites": 4, "concentration": 4.0, "minimum": 40},
}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = desk_of(scenario("none", BONAWITZ), tmp_path_factory.mktemp("pairs") / "world")
    yield made
    close(made)


class Attempts:
    """Attempts one after the other, by one aggregator over lines that a test may cut."""

    def __init__(self, desk: Desk):
        self.desk, self.lines, self.seen = desk, Lines(desk), list[tuple[int, AnyOrder]]()
        self.sums = sums_of(questions_of(desk, self.lines), desk.work, RUN)
        self.state = State(parameters=flatten(model_of(desk.work.job)))
        self.count = next(ROUNDS)

    def next(self, line: Line = straight) -> Gathered:
        def watched(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
            self.seen.append((site, order))
            return line(site, order, answer)

        self.lines.line, self.count, self.seen = watched, self.count + 1, []
        return self.sums.gather("train", self.count, 0, self.state, self.desk.work.manifest.ids)

    def asked(self, kind: type[AnyOrder]) -> list[int]:
        return [site for site, order in self.seen if isinstance(order, kind)]


@pytest.fixture
def attempts(desk: Desk) -> Attempts:
    return Attempts(desk)


def test_the_job_names_the_protocol(desk: Desk) -> None:
    assert isinstance(sums_of(questions_of(desk), desk.work, RUN), PairwiseAggregator)
    other = prepared(scenario("none", {**BONAWITZ, "job.aggregation.protocol": "alm"}).job, desk.work.manifest)
    assert isinstance(sums_of(questions_of(desk), work_of(other, desk.work.manifest), RUN), Aggregator)
    assert other.digest() != desk.work.job.digest()


def test_a_sum_of_all_sites_is_opened_in_five_stages(attempts: Attempts) -> None:
    gathered = attempts.next()
    assert gathered.failure is None
    assert gathered.sites == (1, 2, 3, 4)
    assert gathered.sum.count == 4
    assert gathered.notes.refused == {}
    assert set(gathered.charges) == set(gathered.notes.sizes) == {1, 2, 3, 4}
    for kind in STAGES:
        assert attempts.asked(kind) == [1, 2, 3, 4]
    assert attempts.asked(EnrolOrder) == attempts.asked(UnmaskOrder) == attempts.asked(WorkOrder) == []


def test_every_site_gets_the_same_model_order(attempts: Attempts) -> None:
    attempts.next()
    assert len({pack(order) for _, order in attempts.seen if isinstance(order, AdvertiseOrder)}) == 1


@pytest.mark.parametrize("before", [True, False], ids=["never answers", "answer lost"])
@pytest.mark.parametrize("kind", STAGES, ids=[kind.__name__ for kind in STAGES])
def test_a_site_lost_at_any_stage_costs_no_other_site_the_sum(
    attempts: Attempts, kind: type[AnyOrder], before: bool
) -> None:
    def lossy(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        if site != 2 or not isinstance(order, kind):
            return answer()
        if not before:
            answer()
        return None

    gathered = attempts.next(lossy)
    assert gathered.failure is None
    assert gathered.sites == ((1, 2, 3, 4) if kind in (AgreeOrder, RevealOrder) else (1, 3, 4))
    assert gathered.sum.count == len(gathered.sites)
    assert gathered.notes.refused == {2: Code.SITE_UNREACHABLE}


def test_two_lost_sites_end_the_attempt_and_the_next_one_succeeds(attempts: Attempts) -> None:
    gathered = attempts.next(
        lambda site, order, answer: None if isinstance(order, MaskOrder) and site > 2 else answer()
    )
    assert gathered.failure is Code.E_TOO_FEW
    assert gathered.sites == ()
    assert set(gathered.charges) == {1, 2, 3, 4}
    assert attempts.asked(AgreeOrder) == attempts.asked(RevealOrder) == []
    assert attempts.next().failure is None


def forged(desk: Desk, kind: type[AnyOrder], change: Callable[[AnyReply], AnyReply]) -> Line:
    """Site 1 changes what it answers to orders of a kind, and signs it as its own."""
    signer = Signer.load(desk.federation.sites[0].root / "state" / "identity")

    def line(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        data = answer()
        if site != 1 or not isinstance(order, kind):
            return data
        reply: AnyReply = unpack(AnyReply, unpack(Envelope, data, LIMIT).body, LIMIT)  # type: ignore[arg-type]
        return seal(1, change(reply), signer)

    return line


def of_kind(kind: type[AnyReply], change: Callable[[AnyReply], AnyReply]) -> Callable[[AnyReply], AnyReply]:
    def changed(reply: AnyReply) -> AnyReply:
        assert isinstance(reply, kind)
        return change(reply)

    return changed


LIES = [
    (AdvertiseOrder, Advertised, Code.E_SIG, (2, 3, 4), lambda r: altered(r, keys=altered(r.keys, seed=bytes(32)))),
    (AdvertiseOrder, Advertised, Code.E_SET, (2, 3, 4), lambda r: altered(r, keys=altered(r.keys, site=2))),
    (AdvertiseOrder, Advertised, Code.DATA_INVALID, (2, 3, 4), lambda r: Refused(order=r.order, code="DATA_INVALID",
                                                                               reference="")),
    (MaskOrder, Masked, Code.MESSAGE_INVALID, (2, 3, 4), lambda r: altered(r, body=r.body[:-4])),
    (AgreeOrder, Agreed, Code.E_SIG, (1, 2, 3, 4), lambda r: altered(r, signature=bytes(64))),
    (RevealOrder, Revealed, Code.E_SHARE, (1, 2, 3, 4), lambda r: altered(
        r, shares=tuple(altered(each, share=bytes(33)) for each in r.shares))),
    (RevealOrder, Revealed, Code.MESSAGE_INVALID, (1, 2, 3, 4), lambda r: Agreed(order=r.order, signature=bytes(64))),
]  # fmt: skip


@pytest.mark.parametrize(("order", "reply", "code", "sites", "lie"), LIES)
def test_a_lying_site_counts_for_itself_only(desk: Desk, attempts: Attempts, order, reply, code, sites, lie) -> None:
    gathered = attempts.next(forged(desk, order, of_kind(reply, lie)))
    assert gathered.failure is None
    assert gathered.sites == sites
    assert gathered.notes.refused == {1: code}


def test_orders_out_of_turn_or_of_the_other_protocol_are_refused(desk: Desk, attempts: Attempts) -> None:
    attempts.next()
    orders = {type(order): order for site, order in attempts.seen if site == 1}
    for kind in (PairDealOrder, MaskOrder, AgreeOrder):
        assert code_of(desk.ask(1, orders[kind])) == "E_ROUND"
    assert code_of(desk.ask(1, orders[AdvertiseOrder])) == "E_ROUND"
    session, _ = desk.opened()
    assert code_of(desk.ask(session.unmaskers[0], EnrolOrder(run=RUN, job=desk.job, session=session))) == "E_POLICY"


def test_under_the_other_protocol_nothing_of_this_one_is_answered(tmp_path: Path) -> None:
    desk = desk_of(scenario("none", {**BONAWITZ, "job.aggregation.protocol": "alm"}), tmp_path / "world")
    pairs = PairwiseAggregator(questions_of(desk), desk.work, RUN)
    gathered = pairs.gather("train", 1, 0, State(parameters=flatten(model_of(desk.work.job))), desk.work.manifest.ids)
    close(desk)
    assert gathered.failure is Code.E_TOO_FEW
    assert set(gathered.notes.refused.values()) == {Code.E_POLICY}
    assert gathered.charges == {}


def test_a_job_with_groups_is_refused_by_the_sites_too_before_any_charge(desk: Desk, attempts: Attempts) -> None:
    """A coordinator that skips its own check: sites know one sum an attempt, and would be told of several."""
    job = replace(desk.work.job, aggregation=replace(desk.work.job.aggregation, groups=2))
    before = desk.charges(1)
    attempts.next()
    order = next(order for site, order in attempts.seen if isinstance(order, AdvertiseOrder))
    session = altered(order.session, sid=bytes([5] * 32), job=job.digest())
    asked = altered(order, job=job.to_bytes(), session=session, attempt=1)
    assert code_of(desk.ask(1, asked)) == "E_POLICY"
    assert len(desk.charges(1)) - len(before) == 2


def test_an_attempt_in_another_session_is_refused_at_no_cost(desk: Desk, attempts: Attempts) -> None:
    """One report a binding: a site lost to an attempt is not asked for the same one again under another name."""
    attempts.next()
    before = desk.charges(1)
    order = next(order for site, order in attempts.seen if isinstance(order, AdvertiseOrder))
    session = altered(order.session, sid=bytes([6] * 32))
    assert code_of(desk.ask(1, altered(order, session=session))) == "E_MODEL"
    assert desk.charges(1) == before


def test_a_repeated_order_gets_the_same_bytes_and_is_charged_once(desk: Desk, attempts: Attempts) -> None:
    def twice(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        first = answer()
        assert answer() == first
        return first

    before = len(desk.charges(1))
    assert attempts.next(twice).failure is None
    entries = desk.charges(1)[before:]
    assert len(entries) == len(set(entries))


def test_a_site_whose_policy_names_alm_alone_refuses_before_any_charge(tmp_path: Path) -> None:
    """Policies that were written before there was a choice name none: they allow what they always allowed."""
    made = scenario("none", BONAWITZ)
    desk = desk_of(made, tmp_path / "world")
    close(desk)
    file = next(desk.federation.sites[0].root.rglob("policy.toml"))
    policy = tomllib.loads(file.read_text())
    assert policy["aggregation"].pop("protocols") == ["bonawitz"]
    file.write_text(tomli_w.dumps(policy))
    desk.sessions[1] = open_session(desk.federation.sites[0].settings)
    assert code_of(desk.ask(1, desk.offer())) == "POLICY_SECAGG"
    desk.sessions[1].close()


def test_under_rules_without_unmasking_sites_a_job_of_the_other_protocol_is_refused(desk: Desk) -> None:
    manifest, job = desk.work.manifest, desk.work.job
    alone = replace(manifest, rules=replace(manifest.rules, unmaskers_min=0, lost_max=0, shares_min=0, corrupt_max=1))
    assert prepared(job, alone) == job
    with pytest.raises(Refusal, match="no site unmasks") as refused:
        prepared(replace(job, aggregation=replace(job.aggregation, protocol="alm")), alone)
    assert refused.value.code is Code.JOB_INVALID


def test_a_job_whose_quorum_pairwise_masks_cannot_keep_is_refused(desk: Desk) -> None:
    """Four sites, two of which may be corrupt: three survivors could be talked into both secrets of one of them."""
    rules = replace(desk.work.manifest.rules, unmaskers_min=3, corrupt_max=2)
    with pytest.raises(Refusal, match="need 4 survivors") as refused:
        prepared(desk.work.job, replace(desk.work.manifest, rules=rules))
    assert refused.value.code is Code.JOB_INVALID


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_both_protocols_train_the_same_model_bit_for_bit(tmp_path: Path, dropout: float) -> None:
    """With noise that repeats, everything but the masks is the same; drop-outs differ in who is in which sum."""
    changes = ["job.rounds=3", "job.privacy.noise=replay", f"world.faults.dropout={dropout}"]
    runs = {
        protocol: simulate(
            read_scenario(example("clinics"), [*changes, f"job.aggregation.protocol={protocol}"]), tmp_path / protocol
        )
        for protocol in ("alm", "bonawitz")
    }
    models = [finished.state.parameters for finished in runs.values()]
    assert len(runs["bonawitz"].state.rounds) == 3
    if not dropout:
        np.testing.assert_array_equal(*models)
        assert not np.array_equal(models[0], flatten(model_of(runs["alm"].work.job)))
    assert shape_of(4, runs["bonawitz"].work.manifest.rules.corrupt_max, 3).threshold == 3

"""Nothing leaves without a charge on disk, and no kill at any point makes the ledger forget a release."""

from __future__ import annotations

import math
import os
import signal
import sqlite3

import numpy as np
import pytest

from client.guard import Guard
from client.limits import Limit
from common.errors import Code, Refusal
from common.identity import Signer
from common.privacy.accounting import ONLINE, total_epsilon
from common.privacy.chain import charged, verify_public
from common.privacy.clipped import Clipped, Counted, PrivateUpdate
from common.privacy.entries import Facts, Kind
from common.privacy.ledger import Ledger, Owner, open_ledger
from common.privacy.plan import PrivacySettings, plan_counts, plan_training
from common.randomness import ReplayEntropy, SystemEntropy

OWNER, SIGNER, FACTS = Owner(1, "ab" * 32), Signer.from_seed(bytes(32)), Facts(run="aa", round=1, order="bb")
SHARED = {"unit": "record", "epsilon": 2.0, "delta": 1e-5, "clip": 1.0, "sampling_rate": 0.2, "spare_rounds": 0}
M2 = PrivacySettings(mode="M2", colluding=1, metric_share=0.0, evaluation_epsilon=1.0, **SHARED)
M1 = PrivacySettings(mode="M1", evaluation_epsilon=1.0, **SHARED)
PLACE = {"rounds": 4, "dimension": 3, "quorum": 3, "sites": 3, "records": 200}
SUM = plan_training(M2, local_steps=1, **PLACE)
LOCAL = plan_training(M1, local_steps=5, **PLACE)
COUNTS = plan_counts(M2, cells=4, releases=1, quorum=3)
PLAIN = plan_training(PrivacySettings(mode="none"), local_steps=5, **PLACE)
KILLS = int(os.environ.get("HUSHFED_KILLS", "60"))
CLIPPED = Clipped(np.array([0.5, -0.25, 0.0]), 1.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    with open_ledger(path, OWNER, SIGNER) as opened:
        yield opened


@pytest.fixture
def guard(ledger):
    return Guard(ledger, Limit(2.0, 1e-5), {"hushfed": "1"})


def refused(code, act, *arguments):
    with pytest.raises(Refusal) as raised:
        act(*arguments)
    assert raised.value.code is code
    return str(raised.value)


def test_every_planned_release_is_affordable_and_the_next_is_refused(guard, ledger):
    for _ in range(SUM.releases):
        guard.release_sum(guard.reserve(SUM, FACTS), CLIPPED, SystemEntropy())
    assert guard.spent.epsilon <= 2.0
    before = ledger.head
    assert "left of the site's epsilon of 2" in refused(Code.BUDGET_EXHAUSTED, guard.reserve, SUM, FACTS)
    assert ledger.head == before
    guard.release_counts(guard.reserve(COUNTS, FACTS), Counted(np.arange(4)), SystemEntropy())
    assert guard.spent.nominal["holdout"] == pytest.approx(1.0, abs=0.01)


def test_an_unsettled_reservation_is_spent(guard):
    for _ in range(SUM.releases):
        guard.reserve(SUM, FACTS)
    refused(Code.BUDGET_EXHAUSTED, guard.reserve, SUM, FACTS)


def test_a_release_is_on_disk_before_it_is_handed_out(guard, ledger):
    reservation = guard.reserve(SUM, FACTS)
    assert ledger.entries[-1].kind is Kind.RESERVE
    assert ledger.entries[-1].epsilon_after == pytest.approx(reservation.after.epsilon, abs=1e-6)
    release = guard.release_sum(reservation, CLIPPED, SystemEntropy())
    assert ledger.entries[-1].kind is Kind.SETTLE
    assert release.head == ledger.head
    assert release.spent == guard.spent
    assert len(verify_public(ledger.public_lines(), SIGNER.public)) == 3


def test_a_sum_is_scaled_rounded_and_noised(guard):
    drawn = [guard.release_sum(guard.reserve(SUM, FACTS), CLIPPED, SystemEntropy()).lanes for _ in range(SUM.releases)]
    assert all(lanes.dtype == np.int64 for lanes in drawn)
    assert len({lanes.tobytes() for lanes in drawn}) == len(drawn)
    off = np.array(drawn) - CLIPPED.total * SUM.scale
    assert 0.2 * SUM.sigma < np.abs(off).mean() < 2 * SUM.sigma


def test_a_reservation_pays_for_one_release_only(guard):
    reservation = guard.reserve(SUM, FACTS)
    guard.release_sum(reservation, CLIPPED, SystemEntropy())
    refused(Code.LEDGER_TAMPERED, guard.release_sum, reservation, CLIPPED, SystemEntropy())


def test_an_abort_gives_nothing_back(guard, ledger):
    reservation = guard.reserve(SUM, FACTS)
    before = guard.spent
    guard.abort(reservation, Code.INTERNAL)
    assert guard.spent == before
    refused(Code.LEDGER_TAMPERED, guard.release_sum, reservation, CLIPPED, SystemEntropy())


@pytest.mark.parametrize(
    "clipped",
    [
        Clipped(np.zeros(4), 1.0),
        Clipped(np.array([0.0, math.nan, 0.0]), 1.0),
        Clipped(np.array([0.0, math.inf, 0.0]), 1.0),
        Clipped(np.zeros(3, np.float32), 1.0),
        Clipped(np.array([1e300, 0.0, 0.0]), 1.0),
        Clipped(np.zeros(3), 1.001),
        Clipped(np.zeros(3), math.nan),
    ],
    ids=range(7),
)
def test_a_sum_that_does_not_fit_its_plan_stays_and_is_charged(guard, clipped):
    reservation = guard.reserve(SUM, FACTS)
    before = guard.spent
    with pytest.raises(Refusal):
        guard.release_sum(reservation, clipped, SystemEntropy())
    assert guard.spent == before


def test_a_release_of_another_kind_than_was_charged_is_refused(guard):
    reservations = {plan.mode + plan.purpose: guard.reserve(plan, FACTS) for plan in (SUM, PLAIN)}
    update = PrivateUpdate(np.zeros(3), LOCAL.plan_id, 5)
    refused(Code.POLICY_RELEASE, guard.release_update, reservations["M2train"], update, 1.0)
    refused(Code.POLICY_RELEASE, guard.release_plain, reservations["M2train"], np.zeros(3), 1.0)
    refused(Code.POLICY_RELEASE, guard.release_counts, reservations["M2train"], Counted(np.arange(3)), SystemEntropy())
    refused(Code.POLICY_RELEASE, guard.release_sum, reservations["nonetrain"], CLIPPED, SystemEntropy())


def test_noise_of_another_kind_than_the_plan_says_is_refused(guard):
    refused(Code.POLICY_RELEASE, guard.release_sum, guard.reserve(SUM, FACTS), CLIPPED, ReplayEntropy(1))


@pytest.mark.parametrize("counts", [np.arange(3), -np.ones(4, np.int64), np.ones(4)], ids=range(3))
def test_counts_that_do_not_fit_are_refused(guard, counts):
    with pytest.raises(Refusal):
        guard.release_counts(guard.reserve(COUNTS, FACTS), Counted(counts), SystemEntropy())


def test_a_local_update_must_come_from_the_plan_and_the_steps_that_were_charged(ledger):
    guard = Guard(ledger, Limit(9.0, 1e-5))
    reservation = guard.reserve(LOCAL, FACTS)
    for wrong in (PrivateUpdate(np.zeros(3), SUM.plan_id, 5), PrivateUpdate(np.zeros(3), LOCAL.plan_id, 6)):
        refused(Code.POLICY_RELEASE, guard.release_update, reservation, wrong, 1.0)
    release = guard.release_update(reservation, PrivateUpdate(np.array([5.0, -5.0, 0.5]), LOCAL.plan_id, 3), 2.0)
    assert release.lanes.tolist() == [2.0, -2.0, 0.5]
    assert charged(ledger.entries) == [(LOCAL, 3)]


def test_a_plain_or_replayed_release_voids_every_claim(guard):
    guard.release_plain(guard.reserve(PLAIN, FACTS), np.zeros(3), 1.0)
    assert guard.spent.epsilon == math.inf
    assert guard.spent.gated == 0.0
    replayed = plan_training(PrivacySettings(mode="M2", colluding=1, metric_share=0.0, evaluation_epsilon=1.0,
                                             noise="replay", **SHARED), local_steps=1, **PLACE)  # fmt: skip
    release = guard.release_sum(guard.reserve(replayed, FACTS), CLIPPED, ReplayEntropy(1))
    assert len(release.spent.void) == 2
    assert 0 < release.spent.gated <= 2.0


def test_a_limit_at_another_delta_is_held_at_that_delta(ledger):
    strict = Guard(ledger, Limit(2.0, 1e-9))
    affordable = next(n for n in range(1, 5) if strict.after(SUM, n).gated > 2.0) - 1
    assert affordable < SUM.releases
    for _ in range(affordable):
        strict.reserve(SUM, FACTS)
    refused(Code.BUDGET_EXHAUSTED, strict.reserve, SUM, FACTS)


def killed_child(path, point, report):
    """Release forever, in a child that is killed at its n-th commit point; tells `report` before each new release."""
    passed = 0

    def perhaps_die():
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    class Fatal:
        def __init__(self, connection):
            self._connection = connection

        def __getattr__(self, name):
            return getattr(self._connection, name)

        def execute(self, *arguments):
            perhaps_die()
            result = self._connection.execute(*arguments)
            perhaps_die()
            return result

    ledger = open_ledger(path, OWNER, SIGNER)
    ledger._connection = Fatal(ledger._connection)
    guard = Guard(ledger, Limit(1e6, 1e-5))
    while True:
        release = guard.release_sum(guard.reserve(SUM, FACTS), CLIPPED, SystemEntropy())
        os.write(report, b"." if release.lanes.size else b"")


@pytest.mark.parametrize("batch", range(-(-KILLS // 40)))
def test_killed_at_any_point_the_ledger_holds_every_release(path, batch):
    """Must: charge at least what left. Must not: break the chain. Kills at each statement of each commit."""
    open_ledger(path, OWNER, SIGNER).close()
    total_epsilon([SUM.charge(1)], 1e-5, ONLINE)  # so that not every child computes it anew
    left, points = 0, range(40 * batch + 1, min(40 * (batch + 1), KILLS) + 1)
    for point in points:
        listen, report = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                killed_child(path, 1 + point % 23, report)
            finally:
                os._exit(1)
        os.close(report)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        while data := os.read(listen, 4096):
            left += len(data)
        os.close(listen)
        with open_ledger(path, OWNER, SIGNER) as ledger:
            spent = sum(steps for _, steps in charged(ledger.entries))
            settled = sum(entry.kind is Kind.SETTLE for entry in ledger.entries)
            assert spent >= left
            assert settled >= left
    assert 6 * left > len(points)
    with open_ledger(path, OWNER, SIGNER) as ledger:
        assert len(verify_public(ledger.public_lines(), SIGNER.public)) == len(ledger.entries)


def test_a_disk_that_refuses_keeps_the_release_inside(guard, monkeypatch):
    reservation = guard.reserve(SUM, FACTS)
    before = guard.spent
    monkeypatch.setattr(Ledger, "_write", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("disk full")))
    with pytest.raises(sqlite3.OperationalError):
        guard.release_sum(reservation, CLIPPED, SystemEntropy())
    assert guard.spent == before


def test_a_changed_limit_needs_a_reason_which_the_ledger_keeps(ledger):
    Guard(ledger, Limit(2.0, 1e-5)).reserve(SUM, FACTS)
    before = len(ledger.entries)
    for limit in (Limit(3.0, 1e-5), Limit(1.9, 1e-5), Limit(2.0, 1e-6)):
        message = refused(Code.POLICY_PRIVACY, Guard(ledger, limit).reserve, SUM, FACTS)
        assert "reason" in message
    assert len(ledger.entries) == before
    raised = Guard(ledger, Limit(3.0, 1e-5, "the ethics board agreed on 4 May"))
    raised.reserve(SUM, FACTS)
    raised.reserve(SUM, FACTS)
    changes = [entry for entry in ledger.entries if entry.kind is Kind.BUDGET_CHANGE]
    assert [(one.budget, one.delta, one.note) for one in changes] == [(3.0, 1e-5, "the ethics board agreed on 4 May")]
    assert verify_public(ledger.public_lines(), SIGNER.public) == list(ledger.entries)
    refused(
        Code.POLICY_PRIVACY, Guard(ledger, Limit(4.0, 1e-5, "the ethics board agreed on 4 May")).reserve, SUM, FACTS
    )


def test_a_changed_limit_that_affords_nothing_is_not_written_down(ledger):
    Guard(ledger, Limit(2.0, 1e-5)).reserve(SUM, FACTS)
    before = len(ledger.entries)
    refused(Code.BUDGET_EXHAUSTED, Guard(ledger, Limit(0.1, 1e-5, "we want to stop")).reserve, SUM, FACTS)
    assert len(ledger.entries) == before

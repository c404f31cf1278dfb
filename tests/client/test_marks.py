"""Local steps that were interrupted: what counts is at least what was executed, and not much more."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.guard import Guard
from client.limits import Limit
from client.marks import LEAST_STRIDE, MOST_STRIDES, end_interrupted, stride
from client.session import open_session
from common.errors import Code, Refusal
from common.identity import Signer
from common.messages import COORDINATOR, Reported, seal
from common.privacy.accounting import REPORT, total_epsilon
from common.privacy.chain import charged, verify_public
from common.privacy.clipped import PrivateUpdate
from common.privacy.entries import Facts, Kind
from common.privacy.ledger import Ledger, Owner, open_ledger
from common.privacy.plan import PrivacySettings, plan_counts, plan_training
from common.privacy.spending import spending_of
from tests.worlds import Desk, close, code_of, desk_of, scenario

OWNER, SIGNER, FACTS = Owner(1, "ab" * 32), Signer.from_seed(bytes(32)), Facts(run="aa", round=1, order="bb")
STEPS, DELTA, ROOT = 45, 1e-5, Path(__file__).parents[2]
SETTINGS = PrivacySettings(
    mode="M1", unit="record", epsilon=2.0, delta=DELTA, clip=1.0, sampling_rate=0.2, spare_rounds=0,
    evaluation_epsilon=1.0,
)  # fmt: skip
PLACE = {"rounds": 40, "dimension": 3, "quorum": 3, "sites": 3, "records": 200}
LOCAL = plan_training(SETTINGS, local_steps=STEPS, **PLACE)
KILLS = int(os.environ.get("HUSHFED_KILLS", "60"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with open_ledger(path, OWNER, SIGNER) as opened:
        yield opened


@pytest.fixture
def guard(ledger: Ledger) -> Guard:
    return Guard(ledger, Limit(1e3, DELTA))


def kinds(ledger: Ledger) -> list[str]:
    return [entry.kind.value for entry in ledger.entries]


def steps_of(ledger: Ledger) -> int:
    return sum(steps for _, steps in charged(ledger.entries))


def test_marks_are_few_and_stand_in_the_reservation(guard, ledger):
    assert [stride(LOCAL, steps) for steps in (1, 10, 11, 45, 80, 81, 1000)] == [0, 0, 10, 10, 10, 11, 125]
    for steps in range(11, 400):
        assert -(-steps // stride(LOCAL, steps)) <= MOST_STRIDES
        assert stride(LOCAL, steps) >= LEAST_STRIDE
    counts = plan_counts(SETTINGS, cells=4, releases=1, quorum=3)
    assert stride(counts, 1000) == 0
    assert stride(replace(LOCAL, mode="none", mechanism="none"), 1000) == 0
    assert guard.reserve(LOCAL, FACTS).every == ledger.entries[-1].every == 10


def test_a_mark_is_on_disk_before_the_steps_after_it(guard, ledger):
    charge = guard.reserve(LOCAL, FACTS)
    for step in range(STEPS):
        guard.executed(charge, step)
        assert ledger.open[charge.seq] > step
        assert [entry.steps for entry in ledger.entries if entry.kind is Kind.MARK] == list(range(10, step + 1, 10))
        assert steps_of(ledger) == STEPS  # whole, as long as work goes on
    guard.release_update(charge, PrivateUpdate(np.zeros(3), LOCAL.plan_id, STEPS), 1.0)
    assert kinds(ledger) == ["OPEN", "RESERVE", *["MARK"] * 4, "SETTLE"]
    assert steps_of(ledger) == STEPS
    assert verify_public(ledger.public_lines(), SIGNER.public) == list(ledger.entries)


def test_a_release_without_its_marks_stays(guard):
    """Whoever forgets them would be charged too little after a crash."""
    charge = guard.reserve(LOCAL, FACTS)
    with pytest.raises(Refusal) as refused:
        guard.release_update(charge, PrivateUpdate(np.zeros(3), LOCAL.plan_id, STEPS), 1.0)
    assert refused.value.code is Code.LEDGER_TAMPERED


@pytest.mark.parametrize(("reached", "counted"), [(0, 10), (9, 10), (10, 20), (11, 20), (44, 45)])
def test_work_that_ends_without_an_output_pays_up_to_the_next_mark(guard, ledger, reached, counted):
    charge = guard.reserve(LOCAL, FACTS)
    for step in range(reached + 1):
        guard.executed(charge, step)
    guard.abort(charge, Code.UPDATE_INVALID)
    assert (ledger.entries[-1].kind, ledger.entries[-1].steps) == (Kind.STOP, counted)
    assert ledger.entries[-1].note == "UPDATE_INVALID"
    assert charged(ledger.entries) == [(LOCAL, counted)]
    assert guard.spent.nominal["train"] == spending_of(ledger.entries, DELTA, 5e-4).nominal["train"]
    with pytest.raises(Refusal):
        guard.release_update(charge, PrivateUpdate(np.zeros(3), LOCAL.plan_id, reached), 1.0)
    before = ledger.head
    guard.abort(charge, Code.INTERNAL)  # it has ended: nothing more is written
    end_interrupted(ledger)
    assert ledger.head == before


def test_what_was_reserved_without_marks_stays_charged_as_it_is(guard, ledger):
    guard.reserve(LOCAL, FACTS, 5)
    guard.reserve(replace(LOCAL, mode="none", mechanism="none"), FACTS)
    end_interrupted(ledger)
    assert kinds(ledger) == ["OPEN", "RESERVE", "RESERVE"]


def test_of_two_charges_for_one_release_each_ends_by_its_own_rule(guard, ledger):
    """Local steps at their next mark; a sum whole, since its noise is drawn once."""
    shared = replace(SETTINGS, mode="M2", colluding=1, metric_share=0.0)
    whole = plan_training(shared, local_steps=1, **PLACE)
    local, other = guard.reserve(LOCAL, FACTS), guard.reserve(whole, FACTS)
    for step in range(13):
        guard.executed(local, step)
    for charge in (local, other):
        guard.abort(charge, Code.INTERNAL)
    assert kinds(ledger)[3:] == ["MARK", "STOP", "ABORT"]
    assert ledger.charges == [(LOCAL, 20), (whole, 1)]


class Fatal:
    """A connection whose process ends at its n-th call, before it or after it."""

    def __init__(self, connection: Any, calls: int):
        self._connection, self._left = connection, calls

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, *arguments: Any) -> Any:
        self._die()
        result = self._connection.execute(*arguments)
        self._die()
        return result

    def _die(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_child(path: Path, calls: int, steps: int, report: int) -> None:
    """Work and release until killed: at a commit, or at a step; tells of every step before it, of every release after.

    What an earlier child left open is ended first, as an agent does when it starts.
    """
    ledger = open_ledger(path, OWNER, SIGNER)
    ledger._connection = Fatal(ledger._connection, calls)
    end_interrupted(ledger)
    guard = Guard(ledger, Limit(1e6, DELTA))
    while True:
        charge = guard.reserve(LOCAL, FACTS)
        for step in range(STEPS):
            guard.executed(charge, step)
            os.write(report, b"s")
            steps -= 1
            if steps == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        guard.release_update(charge, PrivateUpdate(np.zeros(3), LOCAL.plan_id, STEPS), 1.0)
        os.write(report, b"r")


def epsilon_of(steps: int) -> float:
    return total_epsilon([LOCAL.charge(steps)], DELTA, REPORT)


def test_killed_at_any_point_the_recomputed_epsilon_covers_every_step(path):
    """Must: charge each step whose noise was drawn, killed anywhere, at a start too. Must not: charge whole rounds."""
    open_ledger(path, OWNER, SIGNER).close()
    total_epsilon([LOCAL.charge(1)], DELTA)  # so that not every child computes it anew
    chance, executed, released = random.Random(7), 0, 0
    for number in range(KILLS):
        calls, steps = (1 + number % 29, 10**9) if number % 2 else (10**9, chance.randrange(1, 3 * STEPS))
        listen, report = os.pipe()
        if (child := os.fork()) == 0:
            try:
                killed_child(path, calls, steps, report)
            finally:
                os._exit(1)
        os.close(report)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        while data := os.read(listen, 4096):
            executed, released = executed + data.count(b"s"), released + data.count(b"r")
        os.close(listen)
        with open_ledger(path, OWNER, SIGNER) as ledger:
            assert steps_of(ledger) >= executed
            assert sum(entry.kind is Kind.SETTLE for entry in ledger.entries) >= released
    with open_ledger(path, OWNER, SIGNER) as ledger:
        end_interrupted(ledger)
        entries = verify_public(ledger.public_lines(), SIGNER.public)
        counted = steps_of(ledger)
        assert not ledger.open
    assert executed <= counted <= executed + 10 * KILLS  # a stretch for each kill, not a reservation
    assert counted < sum(entry.steps for entry in entries if entry.kind is Kind.RESERVE) - 5 * KILLS
    assert spending_of(entries, DELTA, REPORT).nominal["train"] >= epsilon_of(executed)
    assert released > KILLS // 4


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("M1", {"job.training.local_steps": STEPS}), tmp_path / "world")
    yield made
    close(made)


def train_lines(desk: Desk) -> list[tuple[str, int]]:
    ledger = desk.sessions[1]._holdings.ledger(desk.work.job.dataset)
    return [(entry.kind.value, entry.steps) for entry in ledger.entries[1:]]


def test_a_step_that_fails_ends_the_charge_at_the_next_mark_and_nothing_of_it_is_used_again(desk, monkeypatch):
    from client import private_step

    drawn, seen = private_step.poisson, []

    def failing(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == 13:
            raise MemoryError
        return drawn(*arguments)

    order = desk.work_order()
    monkeypatch.setattr(private_step, "poisson", failing)
    assert code_of(desk.ask(1, order)) == "INTERNAL"
    assert train_lines(desk) == [("RESERVE", STEPS), ("MARK", 10), ("STOP", 20)]
    reply = desk.ask(1, order)
    assert isinstance(reply, Reported)
    assert train_lines(desk)[3:] == [
        ("RESERVE", STEPS),
        *[("MARK", done) for done in (10, 20, 30, 40)],
        ("SETTLE", STEPS),
    ]
    assert desk.ask(1, order) == reply  # the same bytes again, for nothing
    assert len(train_lines(desk)) == 9


def test_an_agent_killed_in_the_middle_of_training_settles_at_its_next_start(desk, tmp_path):
    """A whole site: its ledger, its key store, real steps; SIGKILL at random moments."""
    settings, order = desk.federation.sites[0].settings, desk.work_order()
    frame = tmp_path / "order"
    frame.write_bytes(seal(COORDINATOR, order, desk.signer))
    desk.sessions.pop(1).close()
    chance, executed, kills = random.Random(), 0, 2
    for _ in range(kills):
        words = [sys.executable, str(Path(__file__).with_name("killed_training.py")), str(settings), str(frame)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as child:
            assert child.stdout is not None
            told = child.stdout.read(chance.randrange(1, STEPS - 5))
            child.kill()
            told += child.stdout.read()
        assert set(told) == set(b"s")
        executed += len(told)
    desk.sessions[1] = open_session(settings)
    lines = train_lines(desk)  # the start has ended what was left, no order was needed
    assert [kind for kind, _ in lines].count("STOP") == kills
    ledger = desk.sessions[1]._holdings.ledger(desk.work.job.dataset)
    assert executed <= steps_of(ledger) <= executed + 10 * kills
    assert isinstance(desk.ask(1, order), Reported)
    assert executed + STEPS <= steps_of(ledger) <= executed + STEPS + 10 * kills
    plan = desk.work.training
    true = total_epsilon([plan.charge(executed + STEPS)], DELTA, REPORT)
    assert spending_of(ledger.entries, DELTA, REPORT).nominal["train"] >= true


def test_a_start_that_finds_a_damaged_ledger_goes_on_and_every_order_is_refused(desk, caplog):
    assert isinstance(desk.ask(1, desk.work_order()), Reported)
    settings = desk.federation.sites[0].settings
    desk.sessions.pop(1).close()
    [path] = Path(settings).parent.glob("**/ledger-*.sqlite")
    path.write_bytes(b"SQLite format 3\0" + bytes(3000))
    desk.sessions[1] = open_session(settings)
    assert "not taken up" in caplog.text
    assert code_of(desk.ask(1, desk.offer())) in ("LEDGER_TAMPERED", "LEDGER_ROLLED_BACK")

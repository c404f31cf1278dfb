"""What a chain charges: never less than the steps that were executed, whatever order its lines come in."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.privacy.chain import Chain, charged
from common.privacy.entries import Entry, Kind
from common.privacy.ledger import new_entry
from common.privacy.plan import PrivacySettings, plan_counts, plan_training

SETTINGS = PrivacySettings(
    mode="M1", unit="record", epsilon=2.0, delta=1e-5, clip=1.0, sampling_rate=0.2, spare_rounds=0,
    evaluation_epsilon=1.0,
)  # fmt: skip
PLANS = [
    plan_training(SETTINGS, rounds=4, local_steps=5, dimension=3, quorum=2, sites=3, records=200),
    plan_counts(SETTINGS, cells=4, releases=1, quorum=2),
]


def refused(act, *arguments):
    with pytest.raises(Refusal) as raised:
        act(*arguments)
    assert raised.value.code is Code.LEDGER_TAMPERED


@dataclass
class Site:
    """A chain, and how many steps of each reservation were really executed."""

    chain: Chain = field(default_factory=Chain)
    executed: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add(Kind.OPEN)

    def entry(self, kind: Kind, **fields: Any) -> Entry:
        return replace(new_entry(kind, **fields), seq=len(self.chain.entries), site=3, dataset="ab" * 16)

    def add(self, kind: Kind, **fields: Any) -> int:
        self.chain.add(self.entry(kind, **fields))
        return len(self.chain.entries) - 1

    def reserve(self, plan: Any, steps: int, every: int) -> int:
        fields = {"partition": plan.partition, "plan_id": plan.plan_id, "plan": plan}
        seq = self.add(Kind.RESERVE, steps=steps, every=every, **fields)
        self.executed[seq] = 0
        return seq

    def work(self, seq: int, steps: int) -> None:
        """Execute so many further steps as a site does: a mark first, where one is due."""
        whole = self.chain.entries[seq]
        for _ in range(min(steps, whole.steps - self.executed[seq])):
            done = self.executed[seq]
            if whole.every and done and done % whole.every == 0 and self.chain.reached(seq) == done:
                self.add(Kind.MARK, reserve=seq, steps=done)
            self.executed[seq] += 1


ACTS = st.lists(
    st.tuples(st.sampled_from(["reserve", "work", "settle", "stop", "abort"]), st.integers(0, 10**6)), max_size=40
)


@given(ACTS)
def test_whatever_happens_the_charge_covers_what_was_executed(acts):
    """Must: be the same kept up with as read anew. Must not: ever be less than the steps whose noise was drawn."""
    site = Site()
    for act, number in acts:
        alive = site.chain.open
        if act == "reserve" or not alive:
            steps = 1 + number % 40
            site.reserve(PLANS[number % 2], steps, number // 40 % steps)
            continue
        seq = alive[number % len(alive)]
        if act == "work":
            site.work(seq, number % 30)
        elif act == "settle":
            site.add(Kind.SETTLE, reserve=seq, steps=site.executed[seq])
        elif act == "stop" and site.chain.entries[seq].every:
            site.add(Kind.STOP, reserve=seq, steps=site.chain.reached(seq))
        elif act == "abort":
            site.add(Kind.ABORT, reserve=seq)
        assert site.chain.charges == charged(site.chain.entries)
        for plan, steps in site.chain.charges:
            spent = sum(done for seq, done in site.executed.items() if site.chain.entries[seq].plan_id == plan.plan_id)
            assert steps >= spent


def marked(*done: int, steps: int = 40, every: int = 10) -> tuple[Site, int]:
    site = Site()
    seq = site.reserve(PLANS[0], steps, every)
    for count in done:
        site.add(Kind.MARK, reserve=seq, steps=count)
    return site, seq


@pytest.mark.parametrize(("done", "counted"), [((), 10), ((10,), 20), ((10, 20), 30), ((10, 20, 30), 40)])
def test_stopped_work_counts_up_to_the_mark_that_would_have_come_next(done, counted):
    site, seq = marked(*done)
    assert site.chain.charges == [(PLANS[0], 40)]  # whole, as long as somebody may be at work
    for wrong in range(-1, 42):
        if wrong != counted:
            refused(site.chain.add, site.entry(Kind.STOP, reserve=seq, steps=wrong))
    site.add(Kind.STOP, reserve=seq, steps=counted)
    assert site.chain.charges == charged(site.chain.entries) == [(PLANS[0], counted)]
    refused(site.chain.add, site.entry(Kind.STOP, reserve=seq, steps=counted))
    refused(site.chain.add, site.entry(Kind.MARK, reserve=seq, steps=counted))


def test_the_last_stretch_is_shorter():
    site, seq = marked(10, 20, steps=25)
    site.add(Kind.STOP, reserve=seq, steps=25)
    assert site.chain.charges == [(PLANS[0], 25)]


@pytest.mark.parametrize("steps", [0, 9, 11, 20, 40, -10])
def test_marks_come_one_after_the_other(steps):
    site, seq = marked(*([10] if steps == 40 else []))
    refused(site.chain.add, site.entry(Kind.MARK, reserve=seq, steps=steps))
    if steps == 40:  # the last steps end in a SETTLE
        site.add(Kind.MARK, reserve=seq, steps=20)
        site.add(Kind.MARK, reserve=seq, steps=30)
        refused(site.chain.add, site.entry(Kind.MARK, reserve=seq, steps=40))


def test_more_steps_than_the_marks_allow_do_not_settle():
    """A site that forgot its marks would be charged too little after a crash: its first release shows it."""
    site, seq = marked()
    refused(site.chain.add, site.entry(Kind.SETTLE, reserve=seq, steps=40))
    refused(site.chain.add, site.entry(Kind.SETTLE, reserve=seq, steps=11))
    site, seq = marked(10, 20, 30)
    refused(site.chain.add, site.entry(Kind.SETTLE, reserve=seq, steps=29))
    site.add(Kind.SETTLE, reserve=seq, steps=40)
    assert site.chain.charges == [(PLANS[0], 40)]


@pytest.mark.parametrize("kind", [Kind.MARK, Kind.STOP])
def test_a_reservation_without_marks_counts_whole_for_ever(kind):
    site, seq = marked(every=0)
    for steps in (0, 1, 10, 40):
        refused(site.chain.add, site.entry(kind, reserve=seq, steps=steps))
    site.add(Kind.ABORT, reserve=seq)
    assert site.chain.charges == [(PLANS[0], 40)]


@pytest.mark.parametrize("every", [-1, 40, 41])
def test_a_distance_of_marks_that_is_none_is_refused(every):
    site = Site()
    refused(site.reserve, PLANS[0], 40, every)
    refused(site.chain.add, site.entry(Kind.BUDGET_CHANGE, every=5))


def test_an_abort_cannot_pretend_to_count():
    site, seq = marked(10)
    refused(site.chain.add, site.entry(Kind.ABORT, reserve=seq, steps=10))
    site.add(Kind.ABORT, reserve=seq)
    assert site.chain.charges == [(PLANS[0], 40)]

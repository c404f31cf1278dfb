"""The ledger keeps every charge, shows every change, and opens for one process and one owner."""

from __future__ import annotations

import gc
import sqlite3
import stat
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.identity import Signer
from common.privacy.accounting import ONLINE, REPORT, total_epsilon
from common.privacy.chain import charged, verify_public
from common.privacy.entries import GENESIS, Facts, Kind, head_of, signed
from common.privacy.ledger import Ledger, Owner, new_entry, open_ledger
from common.privacy.plan import PrivacySettings, plan_counts, plan_training
from common.privacy.spending import spending_of

OWNER = Owner(3, "ab" * 32)
SIGNER = Signer.from_seed(bytes(32))
SETTINGS = PrivacySettings(
    mode="M1", unit="record", epsilon=2.0, delta=1e-5, clip=1.0, sampling_rate=0.2, spare_rounds=0,
    evaluation_epsilon=1.0,
)  # fmt: skip
PLAN = plan_training(SETTINGS, rounds=4, local_steps=5, dimension=3, quorum=2, sites=3, records=200)
COUNTS = plan_counts(SETTINGS, cells=4, releases=1, quorum=2)


def reserve(plan=PLAN, steps=5):
    return new_entry(
        Kind.RESERVE, facts=Facts(run="aa", order="bb"), partition=plan.partition, plan_id=plan.plan_id, plan=plan,
        steps=steps,
    )  # fmt: skip


def settle(seq, steps=5):
    return new_entry(Kind.SETTLE, reserve=seq, steps=steps, output="cc" * 32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    with open_ledger(path, OWNER, SIGNER, {"hushfed": "1"}) as opened:
        opened.append(reserve())
        opened.append(settle(1, 3))
        opened.append(reserve(COUNTS, 1))
        yield opened


def refused(code, act, *arguments):
    with pytest.raises(Refusal) as raised:
        act(*arguments)
    assert raised.value.code is code


def steps_of(ledger):
    return {plan.plan_id: steps for plan, steps in charged(ledger.entries)}


def test_a_ledger_opened_again_holds_the_same(path, ledger):
    entries, head, lines = ledger.entries, ledger.head, ledger.public_lines()
    ledger.close()
    with open_ledger(path, OWNER, SIGNER) as again:
        assert (again.entries, again.head, again.public_lines()) == (entries, head, lines)
        assert again.append(reserve()).seq == 4
    open_ledger(path, OWNER, SIGNER).close()


def test_a_reservation_counts_whole_until_it_is_settled(ledger):
    """Must: lower a charge only to the steps that were executed. Must not: give back anything else."""
    assert steps_of(ledger) == {PLAN.plan_id: 3, COUNTS.plan_id: 1}
    entry = ledger.append(reserve())
    assert steps_of(ledger)[PLAN.plan_id] == 8
    ledger.append(new_entry(Kind.ABORT, reserve=entry.seq, note="INTERNAL"))
    assert steps_of(ledger)[PLAN.plan_id] == 8


def test_a_record_pays_in_its_own_partition_only(ledger):
    spent = ledger.spending(1e-5, REPORT)
    assert spent.nominal["train"] == total_epsilon([PLAN.charge(3)], 1e-5)
    assert spent.nominal["holdout"] == total_epsilon([COUNTS.charge(1)], 1e-5)
    assert spent.epsilon == max(spent.nominal.values())
    assert spending_of(ledger.entries, 1e-5) == spent


@pytest.mark.parametrize(
    "entry",
    [
        settle(1),  # settled already
        settle(3, 2),  # more steps than reserved
        settle(3, -1),
        settle(2),  # answers no reservation
        settle(99),
        settle(-1),
        new_entry(Kind.OPEN),
        replace(reserve(), plan=None),
        replace(reserve(), plan=COUNTS),
        replace(reserve(), partition="holdout"),
        replace(reserve(), steps=0),
        replace(reserve(), plan=replace(PLAN, noise_multiplier=9.0)),
        new_entry(Kind.BUDGET_CHANGE, reserve=3),
    ],
    ids=range(13),
)
def test_an_entry_that_does_not_fit_is_refused_and_leaves_no_trace(ledger, entry):
    before = ledger.public_lines()
    refused(Code.LEDGER_TAMPERED, ledger.append, entry)
    assert ledger.public_lines() == before
    assert ledger.append(settle(3, 1)).seq == 4


def test_the_public_form_verifies_and_holds_no_secret(ledger):
    ledger.append(settle(3, 1), salt=b"s" * 32)
    lines = ledger.public_lines()
    assert verify_public(lines, SIGNER.public) == list(ledger.entries)
    assert head_of(lines) == ledger.head
    assert (b"s" * 32).hex().encode() not in lines
    assert ledger.salt_of(4) == b"s" * 32


def test_every_changed_byte_of_the_public_form_is_found(ledger):
    lines = ledger.public_lines()
    for place in range(0, len(lines), 7):
        changed = lines[:place] + bytes([lines[place] ^ 1]) + lines[place + 1 :]
        refused(Code.LEDGER_TAMPERED, verify_public, changed, SIGNER.public)


@examples(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_bytes_that_are_no_ledger_are_refused(data):
    if data.splitlines():
        refused(Code.LEDGER_TAMPERED, verify_public, data, SIGNER.public)


def test_lines_out_of_order_repeated_or_left_out_are_found(ledger):
    first, second, third, fourth = ledger.public_lines().splitlines(keepends=True)
    for wrong in ([first, third, second, fourth], [first, second, second], [second, third], [first, third, fourth]):
        refused(Code.LEDGER_TAMPERED, verify_public, b"".join(wrong), SIGNER.public)


def test_a_chain_forged_with_another_key_is_found(ledger):
    forged, previous = b"", GENESIS
    for entry in ledger.entries[:1]:
        line = signed(entry, previous, Signer.generate())
        forged, previous = forged + line.public(), line.hash
    refused(Code.LEDGER_TAMPERED, verify_public, forged, SIGNER.public)


def test_a_cut_end_is_found_by_the_acknowledged_head(path, ledger):
    head = ledger.head
    ledger.refuse_rollback(head)
    ledger.refuse_rollback(GENESIS)
    ledger.close()
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM lines WHERE seq = 3")
    file.close()
    with open_ledger(path, OWNER, SIGNER) as short:
        assert not short.contains(head)
        refused(Code.LEDGER_ROLLED_BACK, short.refuse_rollback, head)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE lines SET body = replace(body, '\"steps\":5', '\"steps\":1') WHERE seq = 1",
        "UPDATE lines SET hash = zeroblob(32) WHERE seq = 2",
        "UPDATE lines SET signature = zeroblob(64) WHERE seq = 3",
        "DELETE FROM lines WHERE seq = 0",
        "DELETE FROM lines WHERE seq = 2",
        "UPDATE lines SET body = (SELECT body FROM lines WHERE seq = 1) WHERE seq = 3",
    ],
)
def test_a_changed_file_does_not_open(path, ledger, change):
    ledger.close()
    with sqlite3.connect(path) as file:
        file.execute(change.replace("replace(body", "replace(CAST(body AS TEXT)"))
    file.close()
    refused(Code.LEDGER_TAMPERED, open_ledger, path, OWNER, SIGNER)


def test_a_damaged_file_does_not_open(path, ledger):
    ledger.close()
    path.write_bytes(b"SQLite format 3\0" + bytes(3000))
    refused(Code.LEDGER_TAMPERED, open_ledger, path, OWNER, SIGNER)


def test_the_ledger_of_another_site_data_set_or_key_does_not_open(path, ledger):
    ledger.close()
    refused(Code.LEDGER_TAMPERED, open_ledger, path, Owner(4, OWNER.dataset), SIGNER)
    refused(Code.LEDGER_TAMPERED, open_ledger, path, Owner(3, "cd" * 32), SIGNER)
    refused(Code.LEDGER_TAMPERED, open_ledger, path, OWNER, Signer.generate())
    open_ledger(path, OWNER, SIGNER).close()


def test_only_one_opens_it_at_a_time(path, ledger):
    refused(Code.LEDGER_LOCKED, open_ledger, path, OWNER, SIGNER)


def test_only_its_owner_may_read_the_files(path, ledger):
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_reply_can_be_sent_again_until_newer_ones_push_it_out(ledger):
    ledger.keep_reply("order-0", b"reply")
    assert ledger.reply_to("order-0") == b"reply"
    assert ledger.reply_to("order-1") is None
    for number in range(1, 5):
        ledger.append(reserve())
        ledger.keep_reply(f"order-{number}", b"other")
    assert ledger.reply_to("order-0") is None
    assert ledger.reply_to("order-4") == b"other"


def test_a_disk_that_refuses_leaves_the_ledger_as_it_was(ledger, monkeypatch):
    before = ledger.entries
    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "_write", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("disk full")))
        with pytest.raises(sqlite3.OperationalError):
            ledger.append(reserve())
    assert ledger.entries == before
    assert ledger.append(reserve()).seq == len(before)


def test_a_gate_does_not_add_up_all_lines_again(ledger, monkeypatch):
    """Must: know what everything charges as it goes along, also after a new start. Must not: read it all to decide."""
    expected = spending_of(ledger.entries, 1e-5, ONLINE)
    monkeypatch.setattr("common.privacy.chain.charged", None)
    monkeypatch.setattr("common.privacy.spending.charged", None)
    assert ledger.spending(1e-5) == expected
    entry = ledger.append(reserve())
    assert dict(ledger.charges)[PLAN] == 8
    ledger.append(settle(entry.seq, 2))
    assert dict(ledger.charges)[PLAN] == 5


def test_opening_leaves_the_search_for_garbage_as_it_was(path, ledger):
    ledger.close()
    for searching in (True, False):
        (gc.enable if searching else gc.disable)()
        open_ledger(path, OWNER, SIGNER).close()
        assert gc.isenabled() is searching
    gc.enable()

"""Shares on disk: kept while they may be needed, then gone from every file; and refused a second time by the tables."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.custody import Dealt, Place
from client.keystore import SqliteKeyStore
from client.recovery import deal, keep, own_box
from client.secagg import enrol
from common.errors import Code, Refusal
from common.secagg import RoundSeed
from tests.secagg_federation import SHARING, Federation, digest

SID, JOB = bytes(32), digest("job")


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def place(number: int = 0, **changes: bytes) -> Place:
    return Place(
        **{
            "sid": SID,
            "record": digest("R"),
            "job": JOB,
            "number": number,
            "attempt": number,
            "binding": digest(number),
        }
        | changes
    )


def content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[tuple[Federation, Path]]:
    """Six sites of which five unmask; the store of the first unmasking site is on disk."""
    federation = Federation.open(6, rules=SHARING, numbers=6)
    site, folder = federation.session.unmaskers[0], tmp_path / "keys"
    folder.mkdir(mode=0o700)
    federation.stores[site].identity.save(folder / "identity")
    with sqlite3.connect(folder / "state.sqlite") as disk:
        federation.stores[site]._connection.backup(disk)
    disk.close()
    federation.stores[site] = SqliteKeyStore.open(folder)
    yield federation, folder
    federation.stores[site].close()


def test_no_file_of_the_store_holds_a_share_of_a_number_that_is_over(moved: tuple[Federation, Path]):
    """Must: keep shares of the number in hand and of those to come. Must not: keep others, or the box's secret."""
    federation, folder = moved
    site, *others = federation.session.unmaskers
    store = federation.stores[site]
    shares = {
        number: [store.shares.share(federation.session.sid, number, dealer) for dealer in others] for number in range(6)
    }
    assert all(share and share in content(folder) for each in shares.values() for share in each)
    for number in (0, 1, 4):
        federation.opened(federation.collected(number))
        left = content(folder)
        for known, each in shares.items():
            assert [share in left for share in each] == [known >= number] * 4
    federation.again(sid=bytes([1] * 32))
    assert not any(share and share in content(folder) for each in shares.values() for share in each)


def test_the_secret_of_the_box_is_gone_once_shares_are_kept(tmp_path: Path):
    federation = Federation.open(5, rules=SHARING)
    store = SqliteKeyStore.create(tmp_path / "keys")
    store.identity = federation.stores[1].identity
    enrol(store, federation.manifest, federation.session)
    secret = store.shares.box(SID)
    assert secret is not None
    assert secret.reveal() in content(tmp_path / "keys")
    box = own_box(store, federation.manifest, federation.session)
    boxes = tuple(box if site == 1 else each for site, each in sorted(federation.opening.boxes.items()))
    parcels = []
    for site in (2, 3, 4, 5):
        other = SqliteKeyStore.volatile(federation.stores[site].identity)
        enrol(other, federation.manifest, federation.session)
        own = own_box(other, federation.manifest, federation.session)
        theirs = tuple(own if each.holder == site else each for each in boxes)
        parcels.append(deal(other, federation.manifest, federation.session, theirs)[0])
    assert keep(store, federation.manifest, federation.session, parcels) == ()
    assert secret.reveal() not in content(tmp_path / "keys")
    store.close()


def test_the_tables_themselves_refuse_a_second_deal_a_second_keep_and_a_second_choice():
    """Even a caller without checks."""
    store = Federation.open(2).stores[1]
    for act in (
        lambda: store.shares.deal(place(), Dealt(boxes=bytes(32), parcels=())),
        lambda: store.shares.keep(place(), bytes(32), {}),
    ):
        with refused(Code.E_ROUND):
            act()
    other = digest("session")
    store.enrol(place(sid=other), {0: RoundSeed.generate()}, RoundSeed.generate())
    store.shares.deal(place(sid=other), Dealt(boxes=bytes(32), parcels=()))
    store.shares.keep(place(sid=other), bytes(32), {7: (bytes(33),)})
    for act in (
        lambda: store.shares.deal(place(sid=other), Dealt(boxes=bytes(32), parcels=())),
        lambda: store.shares.keep(place(sid=other), bytes(32), {7: (bytes(33),)}),
    ):
        with refused(Code.E_ROUND):
            act()
    store.shares.release(place(3, sid=other), (7,))
    store.shares.release(place(3, sid=other), (7,))
    with refused(Code.E_SET):
        store.shares.release(place(3, sid=other), (8,))
    assert store.shares.released(other, 3) == (7,)

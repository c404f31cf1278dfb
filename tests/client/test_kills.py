"""Kill -9 on either side of every commit of the protocol: nothing is said twice in two ways, and nothing is stuck.

Killed before the commit, the act never happened and any legal one may follow. Killed after it, the act happened though
nobody heard of it: the same order gives the same answer or a refusal, any other one is refused.
"""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.keystore import SqliteKeyStore
from client.recovery import deal, keep, own_box, release
from client.secagg import enrol, mask, unmask
from common.errors import Code, Refusal
from common.randomness import child
from common.secagg import RoundSeed
from common.secagg.parcels import box_key, sealed_parcel
from server.dealing import Dealing
from server.enrolment import Opening, open_session
from server.secagg import Collecting
from tests.secagg_federation import JOB, SHARING, Federation, digest, manifest_of, signer

ROOT = Path(__file__).parents[2]


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


class Victim:
    """One site whose key store is on disk, and what kills it."""

    def __init__(self, folder: Path, store: SqliteKeyStore):
        self.folder, self.store = folder / "keys", store
        self.folder.mkdir(mode=0o700)
        store.identity.save(self.folder / "identity")
        with sqlite3.connect(self.folder / "state.sqlite") as disk:
            store._connection.backup(disk)
        disk.close()
        self.store = SqliteKeyStore.open(self.folder)

    def killed(self, moment: str, act: str, *arguments: Any) -> SqliteKeyStore:
        """The store as it is after the kill."""
        self.store.close()
        given = self.folder.parent / "arguments"
        given.write_bytes(pickle.dumps(arguments))
        words = [sys.executable, str(Path(__file__).with_name("killed_site.py")), self.folder, act, given, moment]
        ended = subprocess.run(
            [str(word) for word in words],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            timeout=60,
            check=False,
        )
        assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, b"")
        self.store = SqliteKeyStore.open(self.folder)
        return self.store


Open = Callable[[SqliteKeyStore], Victim]
pytestmark = pytest.mark.parametrize("moment", ["before", "after"])


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[Open]:
    made: list[Victim] = []

    def move(store: SqliteKeyStore) -> Victim:
        made.append(Victim(tmp_path, store))
        return made[-1]

    yield move
    for victim in made:
        victim.store.close()


def new_session() -> tuple[Opening, dict[int, SqliteKeyStore]]:
    manifest = manifest_of(5, SHARING)
    session = open_session(manifest, JOB, manifest.ids, range(3), sid=bytes(32), draw=child(1, "unmaskers"))
    return Opening(manifest, session), {site: SqliteKeyStore.volatile(signer(site)) for site in manifest.ids}


def enrolled() -> tuple[Dealing, dict[int, SqliteKeyStore]]:
    opening, stores = new_session()
    for site in opening.session.unmaskers:
        keys = enrol(stores[site], opening.manifest, opening.session)
        opening = opening.receive(site, keys, own_box(stores[site], opening.manifest, opening.session))
    return Dealing(opening), stores


def test_enrolment(on_disk: Open, moment: str):
    """Must not: give two keys for one number."""
    opening, stores = new_session()
    victim = on_disk(stores[1])
    store = victim.killed(moment, "enrol", opening.manifest, opening.session)
    kept = {number: seed.reveal() for number, seed in store.seeds(bytes(32)).items()}
    assert sorted(kept) == ([0, 1, 2] if moment == "after" else [])
    assert (store.shares.box(bytes(32)) is None) == (moment == "before")
    keys = enrol(store, opening.manifest, opening.session)
    box = own_box(store, opening.manifest, opening.session)
    now = {number: seed.reveal() for number, seed in store.seeds(bytes(32)).items()}
    assert moment == "before" or now == kept
    assert enrol(store, opening.manifest, opening.session) == keys
    assert own_box(store, opening.manifest, opening.session) == box


def test_deal(on_disk: Open, moment: str):
    """Must not: share one seed in two ways."""
    dealing, stores = enrolled()
    manifest, session = dealing.opening.manifest, dealing.opening.session
    victim, boxes = on_disk(stores[1]), dealing.boxes
    store = victim.killed(moment, "deal", manifest, session, boxes)
    other = (boxes[0], box_key(signer(2), session, 2, RoundSeed.generate()), *boxes[2:])
    if moment == "before":
        assert store.shares.dealt(session.sid) is None
        assert deal(store, manifest, session, other)[0].holder == 2
        return
    stored = store.shares.dealt(session.sid)
    assert stored is not None
    with refused(Code.E_ROUND):
        deal(store, manifest, session, other)
    assert deal(store, manifest, session, boxes) == stored.parcels


def test_keeping(on_disk: Open, moment: str):
    """Must not: hold some shares without the others, or shares of two deals."""
    dealing, stores = enrolled()
    manifest, session = dealing.opening.manifest, dealing.opening.session
    for site in session.unmaskers:
        dealing = dealing.receive(site, deal(stores[site], manifest, session, dealing.boxes))
    victim, parcels = on_disk(stores[1]), dealing.meant_for(1)
    store = victim.killed(moment, "keep", manifest, session, parcels)
    shares = [store.shares.share(session.sid, number, dealer) for number in range(3) for dealer in (2, 3, 4, 5)]
    assert all(share is None for share in shares) == (moment == "before")
    assert all(share is not None for share in shares) == (moment == "after")
    assert (store.shares.box(session.sid) is None) == (moment == "after")
    assert keep(store, manifest, session, parcels) == ()
    other = sealed_parcel(signer(2), session, 2, dealing.opening.boxes[1], [bytes(33)] * 3)
    with refused(Code.E_ROUND):
        keep(store, manifest, session, (other, *parcels[1:]))


def test_report(on_disk: Open, moment: str):
    """Must not: mask twice with the keys of one number."""
    federation = Federation.open(5, rules=SHARING)
    aggregation, keys = federation.aggregation(1), federation.keys(1)
    victim = on_disk(federation.stores[1])
    store = victim.killed(moment, "report", aggregation, keys, federation.codec.encode(np.ones(9, np.int64)))
    assert store.last_reported(bytes(32)) == (1 if moment == "after" else None)
    assert (store.shares.share(bytes(32), 0, 2) is None) == (moment == "after")
    other = federation.aggregation(1, digest("another model"))
    if moment == "after":
        for asked in (aggregation, other):
            with refused(Code.E_ROUND):
                mask(store, asked, keys, federation.codec.encode(np.ones(9, np.int64)))
    else:
        assert mask(store, other, keys, federation.codec.encode(np.ones(9, np.int64))).number == 1
    assert mask(store, federation.aggregation(2), federation.keys(2), federation.codec.encode(np.ones(9, np.int64)))


def test_answer(on_disk: Open, moment: str):
    """Must not: answer a second set."""
    federation = Federation.open(5, rules=SHARING)
    state = federation.collected(1)
    members, victim = state.members(1), on_disk(federation.stores[1])
    store = victim.killed(moment, "answer", state.aggregation, members)
    if moment == "before":
        assert unmask(store, state.aggregation, members[:-1]).unmasker == 1
        with refused(Code.E_SET):
            unmask(store, state.aggregation, members)
        return
    assert store.seed(bytes(32), 1) is None
    with refused(Code.E_SET):
        unmask(store, state.aggregation, members[:-1])
    federation.stores[1] = store
    assert federation.opened(state).values[0] == 15


def test_release(on_disk: Open, moment: str):
    """Must not: release shares for a second choice of lost sites."""
    federation = Federation.open(5, rules=SHARING)
    state = federation.collected(1)
    federation.answered(state, [1, 2, 4, 5])
    victim = on_disk(federation.stores[1])
    store = victim.killed(moment, "release", state.aggregation, state.set_digest(1), (3,))
    assert store.shares.released(bytes(32), 1) == ((3,) if moment == "after" else None)
    if moment == "before":
        assert release(store, state.aggregation, state.set_digest(1), (2,)).lost == (2,)
        with refused(Code.E_SET):
            release(store, state.aggregation, state.set_digest(1), (3,))
        return
    with refused(Code.E_SET):
        release(store, state.aggregation, state.set_digest(1), (2,))
    federation.stores[1] = store
    assert release(store, state.aggregation, state.set_digest(1), (3,)).shares
    again = Collecting.open(state.aggregation, federation.manifest.ids)
    for site in federation.manifest.ids:
        again = again.receive(site, federation.reports[site])
    assert federation.recovered(again.close(), [3]).open(federation.codec).values[0] == 15


def test_two_kills_in_a_row(on_disk: Open, moment: str):
    """A site that dies at its answer and again at its release still serves one set and one choice."""
    federation = Federation.open(5, rules=SHARING)
    state = federation.collected(1)
    victim = on_disk(federation.stores[1])
    victim.killed("after", "answer", state.aggregation, state.members(1))
    store = victim.killed(moment, "release", state.aggregation, state.set_digest(1), (3,))
    with refused(Code.E_SET):
        unmask(store, state.aggregation, state.members(1)[:-1])
    federation.stores[1] = store
    assert federation.recovered(state, [3]).open(federation.codec).values[0] == 15

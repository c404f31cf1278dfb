"""What the key store never forgets, what it forgets in time, and that a kill at any moment changes neither."""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from client.custody import Answer, Place
from client.key_tables import STEPS, VERSION
from client.keystore import SqliteKeyStore
from client.secagg import enrol, unmask
from common.errors import Code, Refusal
from common.identity import Signer
from common.secagg.keys import RoundSeed
from server.secagg import Collecting
from tests.secagg_federation import Federation, digest, signer

SID, JOB = bytes(32), digest("job")


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def place(number: int, **changes: bytes) -> Place:
    fields = {"sid": SID, "record": digest("R"), "job": JOB, "binding": digest(number)} | changes
    return Place(number=number, attempt=number, **fields)


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())


def moved(federation: Federation, tmp_path: Path) -> None:
    """Put every site's state on disk, as it is."""
    for site, store in federation.stores.items():
        folder = tmp_path / str(site)
        folder.mkdir(mode=0o700)
        store.identity.save(folder / "identity")
        with sqlite3.connect(folder / "state.sqlite") as disk:
            store._connection.backup(disk)
        disk.close()
        federation.stores[site] = SqliteKeyStore.open(folder)


def restarted(federation: Federation, tmp_path: Path, *sites: int) -> None:
    for site in sites or federation.stores:
        federation.stores[site].close()
        federation.stores[site] = SqliteKeyStore.open(tmp_path / str(site))


def test_the_sum_is_bit_exact_though_every_store_is_reopened_at_every_step(tmp_path):
    federation = Federation.open(4)
    moved(federation, tmp_path)
    for number in (0, 1):
        aggregation = federation.aggregation(number)
        state = Collecting.open(aggregation, federation.manifest.ids)
        for site in federation.manifest.ids:
            restarted(federation, tmp_path)
            state = state.receive(site, federation.report(site, aggregation, np.full(9, 10**site)))
        restarted(federation, tmp_path)
        assert federation.opened(state.close()).values.tolist() == [11110] * 9


def test_one_set_a_number_also_across_restarts(tmp_path):
    federation = Federation.open(4)
    moved(federation, tmp_path)
    state = federation.collected()
    site = federation.session.unmaskers[0]
    members = state.members(site)
    total = unmask(federation.stores[site], state.aggregation, members)
    restarted(federation, tmp_path, site)
    assert unmask(federation.stores[site], state.aggregation, members) == total
    with refused(Code.E_SET):
        unmask(federation.stores[site], state.aggregation, members[:-1])
    with refused(Code.E_ROUND):
        federation.report(site, state.aggregation)


def test_no_file_of_the_store_holds_the_seed_of_an_erased_number(tmp_path):
    """Must: keep the seeds of numbers to come. Must not: keep others anywhere, the journal included."""
    federation = Federation.open(3, numbers=64)
    moved(federation, tmp_path)
    site = federation.session.unmaskers[0]
    seeds = {number: seed.reveal() for number, seed in federation.stores[site].seeds(SID).items()}
    assert all(seed in stored(tmp_path / str(site)) for seed in seeds.values())
    for number in (0, 1, 5, 40):
        federation.opened(federation.collected(number))
        content = stored(tmp_path / str(site))
        assert [left for left, seed in seeds.items() if seed in content] == list(range(number + 1, 64))
    federation.again(sid=bytes([1] * 32))
    content = stored(tmp_path / str(site))
    assert not any(seed in content for seed in seeds.values())


def test_a_forgotten_session_leaves_no_seed_and_answers_nothing_more(tmp_path):
    federation = Federation.open(3)
    moved(federation, tmp_path)
    site = federation.session.unmaskers[0]
    store, state = federation.stores[site], federation.collected()
    seeds = [seed.reveal() for seed in store.seeds(SID).values()]
    store.forget(SID)
    assert not any(seed in stored(tmp_path / str(site)) for seed in seeds)
    with refused(Code.E_ROUND):
        unmask(store, state.aggregation, state.members(site))


def test_folder_and_identity_are_the_owners_alone(tmp_path):
    SqliteKeyStore.create(tmp_path / "keys").close()
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "keys").iterdir():
        assert path.stat().st_mode & 0o077 == 0, path.name
    (tmp_path / "keys" / "identity").chmod(0o644)
    with refused(Code.CONFIG_INVALID):
        SqliteKeyStore.open(tmp_path / "keys")


def test_an_identity_is_never_written_over(tmp_path):
    with_key = SqliteKeyStore.create(tmp_path / "keys")
    public = with_key.identity.public
    with_key.close()
    with refused(Code.FILE_EXISTS):
        SqliteKeyStore.create(tmp_path / "keys")
    store = SqliteKeyStore.open(tmp_path / "keys")
    assert store.identity.public == public
    store.close()


def test_a_missing_damaged_or_newer_store_is_refused(tmp_path):
    with refused(Code.FILE_MISSING):
        SqliteKeyStore.open(tmp_path)
    SqliteKeyStore.create(tmp_path / "keys").close()
    database = tmp_path / "keys" / "state.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA user_version = 1000")
    connection.close()
    with refused(Code.CONFIG_INVALID):
        SqliteKeyStore.open(tmp_path / "keys")
    database.write_bytes(b"no database" * 1000)
    with refused(Code.CONFIG_INVALID):
        SqliteKeyStore.open(tmp_path / "keys")


@pytest.mark.parametrize("version", range(1, VERSION))
def test_a_store_of_an_earlier_version_is_brought_up_to_date_and_forgets_nothing(tmp_path, version):
    """Must: open as it lies, with all that was said. Must not: need the site to join anew."""
    SqliteKeyStore.create(tmp_path / "keys").close()
    database = tmp_path / "keys" / "state.sqlite"
    database.unlink()
    with sqlite3.connect(database) as connection:
        connection.executescript("".join(STEPS[:version]) + f"PRAGMA user_version = {version}")
        connection.execute("INSERT INTO session VALUES (?, ?, ?)", (SID, digest("R"), JOB))
        connection.execute("INSERT INTO reported VALUES (?, 3, ?)", (SID, digest(3)))
    connection.close()
    for _ in range(2):
        store = SqliteKeyStore.open(tmp_path / "keys")
        assert (store.pinned(SID), store.last_reported(SID)) == (digest("R"), 3)
        assert store.shares.released(SID, 3) is None
        store.remember_head("ab", bytes([1]) * 32)
        assert store.newest_head("ab") == bytes([1]) * 32
        store.close()


def test_a_second_process_is_refused_and_a_later_one_is_not(tmp_path):
    SqliteKeyStore.create(tmp_path / "keys").close()
    child = run_child("import time; print('open', flush=True); time.sleep(60)", tmp_path / "keys")
    try:
        assert child.stdout.readline() == "open\n"
        with refused(Code.KEYS_LOCKED):
            SqliteKeyStore.open(tmp_path / "keys")
    finally:
        child.kill()
        child.communicate()
    SqliteKeyStore.open(tmp_path / "keys").close()


def test_the_store_itself_refuses_a_number_used_before_and_a_second_answer():
    """Even a caller without checks: the database holds the two promises."""
    store = SqliteKeyStore.volatile(Signer.generate())
    store.report(place(3))
    for number in (3, 2):
        with refused(Code.E_ROUND):
            store.report(place(number))
    with refused(Code.E_POLICY):
        store.report(place(4, record=digest("another R")))
    answer = Answer(set_digest=digest("S"), members=frozenset({1, 2}), total=None)
    store.answer(place(3), answer)
    for again in (place(3, binding=digest("other")), place(4, binding=digest(3))):
        with refused(Code.E_SET):
            store.answer(again, answer)
    store.enrol(place(0), {7: RoundSeed.generate()})
    with refused(Code.E_ROUND):
        store.enrol(place(0), {7: RoundSeed.generate()})


def test_a_refused_change_leaves_no_part_of_it():
    store = SqliteKeyStore.volatile(Signer.generate())
    seeds = {number: RoundSeed.generate() for number in range(3)}
    store.enrol(place(0), seeds)
    with refused(Code.E_ROUND):
        store.enrol(place(0), {9: RoundSeed.generate(), 1: RoundSeed.generate()})
    assert set(store.seeds(SID)) == {0, 1, 2}
    assert store.seeds(SID)[1].reveal() == seeds[1].reveal()


# Kill -9 before and after every commit

CHILD = """
import os, signal, sys
from pathlib import Path
from client.custody import Answer, Place
from client.keystore import SqliteKeyStore
from common.secagg.keys import RoundSeed
from tests.secagg_federation import digest
store = SqliteKeyStore.open(Path(sys.argv[1]))
"""
ACTS = """
moment, target, seen = sys.argv[2], int(sys.argv[3]), 0

class Killed(SqliteKeyStore):
    def _commit(self, cursor):
        global seen
        seen += 1
        if seen == target and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super()._commit(cursor)
        if seen == target and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)

store.__class__ = Killed
place = lambda n: Place(sid=bytes(32), record=digest("R"), job=digest("job"), number=n, attempt=n, binding=digest(n))
store.enrol(place(0), {n: RoundSeed(digest("seed", n)) for n in range(3)})
store.report(place(1))
store.answer(place(1), Answer(set_digest=digest("S"), members=frozenset({1, 2}), total=None))
print("all done", flush=True)
"""


def run_child(acts: str, *arguments: object) -> subprocess.Popen[str]:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", CHILD + acts, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=root)


def state_of(store: SqliteKeyStore) -> tuple[object, ...]:
    answer = store.answered(SID, 1)
    return (sorted(store.seeds(SID)), store.last_reported(SID), answer and answer.set_digest)


STATES = [([], None, None), ([0, 1, 2], None, None), ([1, 2], 1, None), ([2], 1, digest("S"))]


@pytest.mark.parametrize("target", [1, 2, 3])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_a_commit_leaves_the_state_before_or_after_it(tmp_path, moment, target):
    folder = tmp_path / "keys"
    SqliteKeyStore.create(folder).close()
    child = run_child(ACTS, folder, moment, target)
    output, _ = child.communicate(timeout=60)
    assert (child.returncode, output) == (-signal.SIGKILL, "")
    store = SqliteKeyStore.open(folder)
    expected = STATES[target if moment == "after" else target - 1]
    assert state_of(store) == expected
    content = stored(folder)
    kept = [number for number in range(3) if digest("seed", number) in content]
    store.close()
    assert kept == expected[0]


def test_an_enrolment_that_was_stored_but_not_answered_is_answered_again(tmp_path):
    federation = Federation.open(3)
    moved(federation, tmp_path)
    site = federation.session.unmaskers[0]
    restarted(federation, tmp_path, site)
    assert enrol(federation.stores[site], federation.manifest, federation.session) == federation.opening.received[site]


def test_nothing_secret_prints_or_pickles():
    store = SqliteKeyStore.volatile(signer(1))
    seed = RoundSeed(digest("seed"))
    assert seed.reveal().hex() not in f"{seed!r} {seed} {store!r}"
    with pytest.raises(TypeError):
        pickle.dumps(seed)

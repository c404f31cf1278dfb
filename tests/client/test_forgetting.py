"""Secrets of sessions do not outlive their use: the end of a run erases them, and a week does, whatever happened."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.custody import Place
from client.keystore import KEPT_SECONDS, SqliteKeyStore
from common.messages import Enrolled, EnrolOrder, LedgerOrder, LedgerReply, Reported
from common.secagg.keys import RoundSeed
from tests.worlds import RUN, Desk, close, code_of, desk_of, scenario

SID, JOB = bytes(32), bytes([7]) * 32


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("none", {"world.partition.sites": 7, "world.unmaskers": 5}), tmp_path / "world")
    yield made
    close(made)


def content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


def enrolled(folder: Path) -> list[bytes]:
    """A store with the seeds of one session."""
    store = SqliteKeyStore.create(folder)
    seeds = {number: RoundSeed.generate() for number in range(3)}
    store.enrol(Place(sid=SID, record=bytes(32), job=JOB, number=0, attempt=0), seeds, RoundSeed.generate())
    store.close()
    return [seed.reveal() for seed in seeds.values()]


def test_the_end_of_a_run_erases_what_is_left_of_its_mask_keys(desk: Desk) -> None:
    """Must: go on knowing what was said in the session. Must not: make new keys for it."""
    opened = desk.opened()
    site = opened[0].unmaskers[0]
    store = desk.sessions[site]._store
    seeds = [seed.reveal() for seed in store.seeds(opened[0].sid).values()]
    assert len(seeds) == 16
    assert isinstance(desk.ask(site, desk.work_order(opened=opened)), Reported)
    assert isinstance(desk.ask(site, LedgerOrder(run=RUN, job=desk.job)), LedgerReply)
    assert store.seeds(opened[0].sid) == {}
    folder = desk.federation.sites[site - 1].root / "state"
    assert not any(seed in content(folder) for seed in seeds)
    assert store.last_reported(opened[0].sid) == 0
    assert code_of(desk.ask(site, EnrolOrder(run=RUN, job=desk.job, session=opened[0]))) == "E_ROUND"
    assert isinstance(desk.ask(site, EnrolOrder(run=RUN, job=desk.job, session=desk.opened(b"n" * 32)[0])), Enrolled)


def test_an_agent_that_runs_on_forgets_with_the_first_order_after_a_week(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must not: keep what opens a recorded report until somebody restarts the agent."""
    opened = desk.opened()
    site = opened[0].unmaskers[0]
    store, now = desk.sessions[site]._store, time.time()
    assert len(store.seeds(opened[0].sid)) == 16
    monkeypatch.setattr(time, "time", lambda: now + KEPT_SECONDS + 1.0)
    desk.ask(site, desk.offer())
    assert store.seeds(opened[0].sid) == {}


def test_a_run_that_never_ended_is_forgotten_after_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = enrolled(tmp_path / "keys")
    store = SqliteKeyStore.open(tmp_path / "keys")
    assert len(store.seeds(SID)) == 3
    store.close()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + KEPT_SECONDS + 1.0)
    store = SqliteKeyStore.open(tmp_path / "keys")
    assert store.seeds(SID) == {}
    assert store.shares.box(SID) is None
    assert store.pinned(SID) == bytes(32)
    assert not any(seed in content(tmp_path / "keys") for seed in seeds)
    store.close()

"""A ledger that was deleted, cut or restored is never taken for a small one: by its site, and by the next run."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.door import app
from client.holding import ledger_path
from client.keystore import SqliteKeyStore
from client.session import open_session
from client.site import read_site
from common.errors import Code, Refusal
from common.messages import Reported
from server.coordinator import run_job
from server.ledgers import keep_heads, known_heads
from server.reach import Asked
from tests.worlds import Desk, close, code_of, desk_of, questions_of, scenario, settings_of


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("M2"), tmp_path / "world")
    yield made
    close(made)


def state_of(desk: Desk) -> Path:
    return Path(read_site(desk.federation.sites[0].settings).state)


def ledger_of(desk: Desk) -> Path:
    settings = read_site(desk.federation.sites[0].settings)
    return ledger_path(settings, settings.data[0])


def reopened(desk: Desk) -> None:
    desk.sessions[1].close()
    desk.sessions[1] = open_session(desk.federation.sites[0].settings)


def worked(desk: Desk, times: int = 1) -> None:
    for number in range(times):
        order = desk.work_order(opened=desk.opened(bytes([number + 1]) * 32), round=number + 1)
        assert isinstance(desk.ask(1, order), Reported)


def deleted(path: Path) -> None:
    for part in path.parent.glob(f"{path.name}*"):
        part.unlink()


def cut(path: Path) -> None:
    with sqlite3.connect(path) as file:
        for table in ("lines", "salts", "replies"):
            file.execute(f"DELETE FROM {table} WHERE seq >= 3")
    file.close()


def emptied(path: Path) -> None:
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM lines")
    file.close()


@pytest.mark.parametrize("lose", [deleted, cut, emptied])
def test_a_ledger_that_forgot_is_refused_before_anything_is_charged(desk: Desk, lose: Callable[[Path], None]) -> None:
    """Must: say so to the coordinator and to the site's keeper. Must not: grant a fresh budget."""
    worked(desk, 2)
    desk.sessions[1].close()
    lose(ledger_of(desk))
    told = CliRunner().invoke(app, ["budget", str(desk.federation.sites[0].settings), "--json"])
    assert told.exit_code == 3
    assert json.loads(told.stdout.splitlines()[-1])["refusal"]["code"] == "LEDGER_ROLLED_BACK"
    desk.sessions[1] = open_session(desk.federation.sites[0].settings)
    assert code_of(desk.ask(1, desk.offer())) == "LEDGER_ROLLED_BACK"
    assert code_of(desk.ask(1, desk.work_order(opened=desk.opened(bytes([9]) * 32)))) == "LEDGER_ROLLED_BACK"


def test_an_older_copy_is_refused_and_the_newest_one_is_not(desk: Desk, tmp_path: Path) -> None:
    worked(desk)
    desk.sessions[1].close()
    shutil.copy(ledger_of(desk), tmp_path / "old")
    desk.sessions[1] = open_session(desk.federation.sites[0].settings)
    worked(desk, 2)
    desk.sessions[1].close()
    shutil.move(ledger_of(desk), tmp_path / "new")
    shutil.copy(tmp_path / "old", ledger_of(desk))
    desk.sessions[1] = open_session(desk.federation.sites[0].settings)
    assert code_of(desk.ask(1, desk.offer())) == "LEDGER_ROLLED_BACK"
    desk.sessions[1].close()
    shutil.copy(tmp_path / "new", ledger_of(desk))
    desk.sessions[1] = open_session(desk.federation.sites[0].settings)
    assert not hasattr(desk.ask(1, desk.offer()), "code")


def test_a_site_whose_key_store_lost_its_memory_does_not_start(desk: Desk) -> None:
    worked(desk)
    desk.sessions[1].close()
    deleted(state_of(desk) / "state.sqlite")
    with pytest.raises(Refusal, match="join anew") as refused:
        open_session(desk.federation.sites[0].settings)
    assert refused.value.code is Code.FILE_MISSING
    desk.sessions.pop(1)


def test_a_whole_site_restored_from_a_backup_is_found_by_the_next_run(tmp_path: Path) -> None:
    """The site itself cannot notice; the coordinator remembers its head over runs, whatever was cleared between."""
    desk = desk_of(scenario("none"), tmp_path / "world")  # any mode: the second run must not end for want of budget
    desk.sessions[1].close()
    shutil.copytree(state_of(desk), tmp_path / "backup")
    reopened(desk)
    run_job(desk.work, Asked(questions_of(desk)), settings_of(desk))
    known = known_heads(settings_of(desk).heads, "clinics")
    assert set(known) == {1, 2, 3}
    shutil.move(settings_of(desk).state, tmp_path / "first")
    desk.sessions[1].close()
    shutil.rmtree(state_of(desk))
    shutil.copytree(tmp_path / "backup", state_of(desk))
    desk.sessions[1] = open_session(desk.federation.sites[0].settings)
    run_job(desk.work, Asked(questions_of(desk)), settings_of(desk))
    table = json.loads((settings_of(desk).result / "run.json").read_text())
    assert table["refusals"] == [{"site": "clinic-a", "code": "LEDGER_ROLLED_BACK"}]
    assert "clinic-a" not in table["heads"]
    assert known_heads(settings_of(desk).heads, "clinics")[1] == known[1]
    close(desk)


def test_heads_of_other_data_sets_and_sites_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "heads.json"
    assert known_heads(file, "clinics") == {}
    keep_heads(file, "clinics", {1: "01" * 32})
    keep_heads(file, "digits", {1: "02" * 32})
    keep_heads(file, "clinics", {2: "03" * 32})
    assert known_heads(file, "clinics") == {1: "01" * 32, 2: "03" * 32}
    assert known_heads(file, "digits") == {1: "02" * 32}


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"clinics": {"1": "zz"}}', b'{"clinics": {"1": "00"}}', b"\xff"])
def test_damaged_heads_are_no_reason_to_know_none(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "heads.json").write_bytes(damage)
    with pytest.raises(Refusal, match="rolled back would go unseen") as refused:
        known_heads(tmp_path / "heads.json", "clinics")
    assert refused.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize("how", ["deleted", "emptied"])
def test_a_store_that_was_lost_is_not_begun_anew_also_where_the_site_never_trained(tmp_path: Path, how: str) -> None:
    """A site that only unmasks has no ledger to tell by; its lock says that there was a memory. A new folder is new."""
    SqliteKeyStore.create(tmp_path / "keys").close()
    SqliteKeyStore.open(tmp_path / "keys").close()
    for file in (tmp_path / "keys").glob("state.sqlite*"):
        file.unlink() if how == "deleted" else file.write_bytes(b"")
    with pytest.raises(Refusal, check=lambda error: error.code is Code.FILE_MISSING):
        SqliteKeyStore.open(tmp_path / "keys")
    (tmp_path / "new").mkdir(mode=0o700)
    shutil.copy(tmp_path / "keys" / "identity", tmp_path / "new" / "identity")
    SqliteKeyStore.open(tmp_path / "new").close()

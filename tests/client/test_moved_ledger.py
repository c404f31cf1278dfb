"""A ledger deleted, replaced, cut or changed under a running agent: nothing more is charged, nothing leaves."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.door import app
from client.holding import ledger_path
from client.site import read_site
from common.errors import Code, Refusal
from common.messages import Reported
from common.privacy.ledger import Kind, Ledger, new_entry
from tests.worlds import Desk, close, code_of, desk_of, scenario


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Clinic-a has answered one order, and its agent still runs."""
    made = desk_of(scenario("M2"), tmp_path / "world")
    worked(made)
    yield made
    close(made)


def worked(desk: Desk) -> None:
    assert isinstance(desk.ask(1, desk.work_order()), Reported)


def file_of(desk: Desk) -> Path:
    settings = read_site(desk.federation.sites[0].settings)
    return ledger_path(settings, settings.data[0])


def ledger_of(desk: Desk) -> Ledger:
    return desk.sessions[1]._holdings._ledgers["clinics"]


def beside(path: Path) -> list[Path]:
    return [part for part in path.parent.glob(f"{path.name}*") if not part.name.endswith(".lock")]


def deleted(path: Path) -> None:
    for part in beside(path):
        part.unlink()


def without_journal(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def replaced(path: Path) -> None:
    """By the very bytes that it had: what is written from now on would still go elsewhere."""
    for part in beside(path):
        shutil.copy2(part, path.parent / "copy")
        (path.parent / "copy").replace(part)


def a_folder(path: Path) -> None:
    deleted(path)
    path.mkdir()


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 4096)


def shortened(path: Path) -> None:
    """By another program that keeps the rules of the file."""
    with sqlite3.connect(path) as file:
        file.execute("DELETE FROM lines WHERE seq >= 2")
    file.close()


LOST = [deleted, without_journal, replaced, a_folder, cut, shortened]


@pytest.mark.parametrize("lose", LOST)
def test_an_agent_whose_ledger_is_gone_refuses_every_order_at_once(desk: Desk, lose: Callable[[Path], None]) -> None:
    """Must: say so to the coordinator before anything is charged. Must not: wait for its next start."""
    before = ledger_of(desk).head
    lose(file_of(desk))
    for order in (desk.offer(), desk.work_order(opened=desk.opened(bytes([9]) * 32), round=2)):
        assert code_of(desk.ask(1, order)) in ("LEDGER_ROLLED_BACK", "LEDGER_TAMPERED")
    assert ledger_of(desk).head == before


@pytest.mark.parametrize("lose", LOST)
def test_nothing_is_written_into_a_ledger_that_is_gone(desk: Desk, lose: Callable[[Path], None]) -> None:
    """A charge that was made before it vanished is not settled either, so its release does not leave."""
    ledger = ledger_of(desk)
    entries = ledger.entries
    (facts,) = [entry.facts for entry in entries if entry.facts]
    guard, plan = desk.sessions[1]._holdings.guard("clinics"), desk.work.plan("train")
    guard.reserve(plan, facts)
    lose(file_of(desk))
    with pytest.raises(Refusal) as refused:
        guard.reserve(plan, facts)
    assert refused.value.code in (Code.LEDGER_ROLLED_BACK, Code.LEDGER_TAMPERED)
    with pytest.raises(Refusal) as refused:
        ledger.append(new_entry(Kind.SETTLE, reserve=len(entries), steps=plan.steps, output="00" * 32))
    assert refused.value.code in (Code.LEDGER_ROLLED_BACK, Code.LEDGER_TAMPERED)
    assert len(ledger.entries) == len(entries) + 1


def test_a_line_written_while_the_file_vanishes_pays_for_nothing(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: refuse, and remember the line apart from the file, so that no later start takes it for unspent."""
    ledger = ledger_of(desk)
    write = ledger._write

    def lost(*words: object) -> None:
        write(*words)  # type: ignore[arg-type]
        deleted(file_of(desk))

    monkeypatch.setattr(ledger, "_write", lost)
    assert code_of(desk.ask(1, desk.work_order(opened=desk.opened(bytes([9]) * 32), round=2))) == "LEDGER_ROLLED_BACK"
    assert desk.sessions[1]._store.newest_head(ledger._owner.dataset) == ledger.head


def test_a_file_that_is_put_back_serves_again(desk: Desk, tmp_path: Path) -> None:
    path = file_of(desk)
    shutil.move(path, tmp_path / "away")
    assert code_of(desk.ask(1, desk.offer())) == "LEDGER_ROLLED_BACK"
    shutil.move(tmp_path / "away", path)
    if path.stat().st_dev == tmp_path.stat().st_dev:
        assert not hasattr(desk.ask(1, desk.offer()), "code")


def test_a_folder_in_place_of_the_ledger_is_named(desk: Desk) -> None:
    """Must: be refused as a ledger, to the coordinator and to the keeper. Must not: look like a place that is full."""
    desk.sessions[1].close()
    a_folder(file_of(desk))
    told = CliRunner().invoke(app, ["budget", str(desk.federation.sites[0].settings), "--json"])
    refusal = json.loads(told.stdout.splitlines()[-1])["refusal"]
    assert refusal["code"] == "LEDGER_TAMPERED"
    assert "a folder lies in its place" in refusal["why"]
    from client.session import open_session

    desk.sessions[1] = open_session(desk.federation.sites[0].settings)
    assert code_of(desk.ask(1, desk.offer())) == "LEDGER_TAMPERED"

"""The end of a run: a ledger that cannot be had is named in the record, asked for twice, and fetched by resuming."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import Refusal
from common.frames import unpack
from common.messages import LIMIT, AnyOrder, Envelope, LedgerOrder, LedgerReply, seal
from common.privacy.entries import parse_public
from server.coordinator import run_job
from server.reach import Asked
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from tests.worlds import Desk, Lines, close, desk_of, questions_of, scenario, settings_of

NOISE = {"NOISE_REPLAY"}  # of the worlds of these tests


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("M2"), tmp_path / "world")
    yield made
    close(made)


def played(desk: Desk, line: Callable[..., bytes | None], *, resume: bool = False) -> dict[str, Any]:
    run_job(desk.work, Asked(questions_of(desk, Lines(desk, line))), settings_of(desk, resume=resume))
    table: dict[str, Any] = json.loads((settings_of(desk).result / "run.json").read_text())
    return table


def losing(site: int, times: int) -> tuple[Callable[..., bytes | None], list[int]]:
    """A line on which so many ledgers of a site are lost; and whom it was asked to carry one from."""
    asked: list[int] = []

    def line(whose: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        if isinstance(order, LedgerOrder):
            asked.append(whose)
            if whose == site and asked.count(site) <= times:
                return None
        return answer()

    return line, asked


def test_a_site_that_is_being_started_anew_is_asked_for_its_ledger_once_more(desk: Desk) -> None:
    line, asked = losing(2, 1)
    assert played(desk, line)["ledgers_missing"] == []
    assert asked == [1, 2, 3, 2]


def test_a_ledger_that_cannot_be_had_is_named_in_what_the_coordinator_signs(desk: Desk) -> None:
    """Must: name the site and the code, and fail the audit with them. Must not: end the run without its model."""
    line, asked = losing(2, 2)
    table = played(desk, line)
    assert asked == [1, 2, 3, 2]
    assert table["ledgers_missing"] == [{"site": "clinic-b", "code": "SITE_UNREACHABLE"}]
    result = settings_of(desk).result
    assert sorted(path.stem for path in (result / "ledgers").iterdir()) == ["clinic-a", "clinic-c"]
    found = audit(read_run(result))
    assert "LEDGER_MISSING" in found["problems"]
    assert any("SITE_UNREACHABLE" in one["detail"] for one in found["findings"])
    (result / "run.json").write_text(json.dumps({**table, "ledgers_missing": []}))
    assert "RECORD_MISMATCH" in audit(read_run(result))["problems"]


def test_a_missing_ledger_is_asked_for_again_by_resuming_and_no_other(desk: Desk) -> None:
    """Must: end with a record that verifies. Must not: charge anybody, or lose ledgers of sites that are gone now."""
    first = played(desk, losing(2, 2)[0])
    charges = desk.charges(2)
    line, asked = losing(2, 0)
    second = played(desk, line, resume=True)
    assert asked == [2]
    assert second["ledgers_missing"] == []
    assert {name: second[name] for name in ("run", "heads", "fingerprints")} == {
        name: first[name] for name in ("run", "heads", "fingerprints")
    } | {"fingerprints": {**first["fingerprints"], "clinic-b": second["fingerprints"]["clinic-b"]}}
    assert desk.charges(2) == charges
    assert set(audit(read_run(settings_of(desk).result))["problems"]) == NOISE


def test_a_whole_record_is_not_written_again(desk: Desk) -> None:
    played(desk, losing(2, 0)[0])
    before = (settings_of(desk).result / "run.json").read_bytes()
    with pytest.raises(Refusal, match="it is not empty"):
        played(desk, losing(2, 0)[0], resume=True)
    assert (settings_of(desk).result / "run.json").read_bytes() == before


@pytest.mark.parametrize(("spoil", "code"), [("cut", "LEDGER_ROLLED_BACK"), ("changed", "LEDGER_TAMPERED")])
def test_a_ledger_that_is_not_believed_is_missing_too(desk: Desk, spoil: str, code: str) -> None:
    """The site's key signs what it sends; the ledger in it is another."""

    def line(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        data = answer()
        if site != 2 or not isinstance(order, LedgerOrder):
            return data
        signer = desk.sessions[2]._store.identity
        reply = unpack(LedgerReply, unpack(Envelope, data, LIMIT).body, LIMIT)
        entries = b"".join(reply.entries.splitlines(keepends=True)[:-1])
        if spoil == "changed":
            entries = reply.entries.replace(b'"steps":1', b'"steps":0', 1)
        head = parse_public(entries)[-1].hash
        return seal(2, LedgerReply(order=reply.order, entries=entries, head=head, data=reply.data), signer)

    assert played(desk, line)["ledgers_missing"] == [{"site": "clinic-b", "code": code}]

"""An attempt that broke off in the middle of its steps: the audit counts what its ledger says, and sees a lie in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client import private_step
from common.privacy.chain import charged, read_chain
from common.privacy.entries import GENESIS, Kind, parse_public, signed
from server.coordinator import run_job
from server.reach import Asked
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from tests.simulations.recorded import edit
from tests.worlds import Desk, close, desk_of, questions_of, scenario, settings_of

STEPS, BROKEN = 25, 13
CHANGES = {"job.training.local_steps": STEPS, "job.privacy.noise": "system", "job.rounds": 2}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A run in which one step of the first site's first attempt fails."""
    made = desk_of(scenario("M1", CHANGES), tmp_path_factory.mktemp("world") / "world")
    drawn, seen = private_step.poisson, []

    def failing(*arguments: Any) -> Any:
        seen.append(1)
        if len(seen) == BROKEN:
            raise MemoryError
        return drawn(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(private_step, "poisson", failing)
        run_job(made.work, Asked(questions_of(made)), settings_of(made))
    yield made
    close(made)


def result_of(desk: Desk) -> Path:
    return settings_of(desk).result


def struck(desk: Desk) -> tuple[Path, list[Any]]:
    """The ledger with the interrupted attempt, and its entries."""
    for file in sorted((result_of(desk) / "ledgers").glob("*.jsonl")):
        entries = read_chain(parse_public(file.read_bytes()))
        if any(entry.kind is Kind.STOP for entry in entries):
            return file, entries
    raise AssertionError("no ledger has an attempt that was interrupted")


def test_the_audit_recomputes_what_the_site_counted(desk: Desk) -> None:
    """Must: count the steps up to the next mark, in this run. Must not: take the attempt for one that left the site."""
    file, entries = struck(desk)
    at = next(entry.seq for entry in entries if entry.kind is Kind.STOP)
    assert [(entry.kind.value, entry.steps) for entry in entries[at - 2 : at + 1]] == [
        ("RESERVE", STEPS), ("MARK", 10), ("STOP", 20),
    ]  # fmt: skip
    train = dict(charged(entries))[desk.work.training]
    assert train % STEPS == 20
    found = audit(read_run(result_of(desk)))
    assert found["findings"] == []
    told = {site["site"]: site for site in found["sites"]}
    for site in told.values():
        assert site["recomputed"] == pytest.approx(site["epsilon"], abs=1e-3)
    clean = next(site for name, site in told.items() if name != file.stem)
    settled = sum(entry.kind is Kind.SETTLE and entry.steps == STEPS for entry in entries)
    assert (told[file.stem]["recomputed"] > clean["recomputed"]) is (settled == 2)
    assert found["epsilon"] <= found["promised"]


@pytest.mark.parametrize(
    "lie", [{"steps": 10}, {"steps": 13}, {"steps": 0}, {"kind": Kind.SETTLE, "steps": 9}, {"reserve": 1, "steps": 0}]
)
def test_a_site_that_signs_fewer_steps_than_its_marks_allow_is_found(desk: Desk, tmp_path: Path, lie: Any) -> None:
    """Whoever has the site's key, and the coordinator's word for the head, still cannot lower what marks say."""
    file, entries = struck(desk)
    folder = tmp_path / "run"
    for path in result_of(desk).rglob("*"):
        if path.is_file():
            (folder / path.relative_to(result_of(desk)).parent).mkdir(parents=True, exist_ok=True)
            (folder / path.relative_to(result_of(desk))).write_bytes(path.read_bytes())
    site = next(one for one in desk.work.manifest.sites if one.name == file.stem)
    signer = desk.sessions[site.id]._store.identity
    previous, lines = GENESIS, []
    for entry in entries:
        line = signed(replace(entry, **lie) if entry.kind is Kind.STOP else entry, previous, signer)
        previous = line.hash
        lines.append(line.public())
    (folder / "ledgers" / file.name).write_bytes(b"".join(lines))
    edit(folder, lambda facts: facts["heads"][file.stem].update(head=previous.hex()))
    found = audit(read_run(folder))
    assert "CHAIN_BROKEN" in found["problems"]
    assert found["epsilon"] is None
    json.dumps(found)

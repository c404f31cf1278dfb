"""Whoever changes a ledger is found out: by the site itself before anything is spent, and by the audit of a run."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common import console
from deploy.provision import FederationFolder, SiteFolder
from simulations.world import simulate
from tests.stories.stage import change_run, ledger_file, ledger_of, rehearse, rounds_of, run_of, scenario_of

pytestmark = pytest.mark.story

SHORT = scenario_of("job.rounds=2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation's folder after one run, with `coordinator/state/result`; tests work on copies."""
    root = tmp_path_factory.mktemp("world") / "federation"
    simulate(SHORT, root)
    return root


def damage(site: SiteFolder, statement: str, *values: object) -> None:
    """Change the ledger file as somebody with the site's disk could."""
    with sqlite3.connect(ledger_file(site)) as connection:
        connection.execute(statement, values)


def flip_a_bit(site: SiteFolder) -> None:
    (body,) = _cell(site, "SELECT body FROM lines WHERE seq = 3")
    at = body.index(b'"steps":') + len(b'"steps":')
    damage(site, "UPDATE lines SET body = ? WHERE seq = 3", body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])


def swap_two_lines(site: SiteFolder) -> None:
    for before, after in ((1, -1), (3, 1), (-1, 3)):
        damage(site, "UPDATE lines SET seq = ? WHERE seq = ?", after, before)


def drop_a_line_within(site: SiteFolder) -> None:
    damage(site, "DELETE FROM lines WHERE seq = 2")


def take_the_signature_of_another(site: SiteFolder) -> None:
    damage(
        site,
        "UPDATE lines SET signature = (SELECT signature FROM lines WHERE seq = 1)"
        " WHERE seq = (SELECT max(seq) FROM lines)",
    )


def overwrite_the_file(site: SiteFolder) -> None:
    path = ledger_file(site)
    path.write_bytes(b"SQLite format 3\0" + b"\x5a" * (path.stat().st_size - 16))


def _cell(site: SiteFolder, question: str) -> Any:
    with sqlite3.connect(ledger_file(site)) as connection:
        return connection.execute(question).fetchone()


DAMAGES = [
    flip_a_bit,
    swap_two_lines,
    drop_a_line_within,
    take_the_signature_of_another,
    overwrite_the_file,
]


def copied(finished: Path, place: Path) -> FederationFolder:
    """A copy of the finished federation, as its folder."""
    from common.secagg.manifest import read_manifest

    root = Path(shutil.copytree(finished, place / "copy"))
    governance = bytes.fromhex((root / "coordinator" / "governance.pub").read_text())
    manifest = read_manifest(root / "coordinator" / "manifest.json", governance)
    folders = tuple(SiteFolder(id=site.id, name=site.name, root=root / "sites" / site.name) for site in manifest.sites)
    return FederationFolder(root=root, manifest=manifest, sites=folders)


@pytest.mark.parametrize("wound", DAMAGES)
def test_a_site_whose_ledger_was_changed_takes_part_in_nothing(
    finished: Path, tmp_path: Path, wound: Callable[[SiteFolder], None]
):
    """Must: refuse with LEDGER_TAMPERED, while the others go on. Must not: repair, replace or extend the ledger."""
    folder = copied(finished, tmp_path)
    victim = folder.sites[1]
    wound(victim)
    left = _cells(victim)
    state = rehearse(folder, SHORT, "again", lambda sites: sites)
    assert state.excluded == {victim.id: "LEDGER_TAMPERED"}
    result = folder.coordinator / "again" / "result"
    assert [row["sites"] for row in rounds_of(result)] == [["clinic-a", "clinic-c", "clinic-d"]] * 2
    assert run_of(result)["refusals"] == [{"site": "clinic-b", "code": "LEDGER_TAMPERED"}]
    assert _cells(victim) == left


def _cells(site: SiteFolder) -> list[Any] | bytes:
    try:
        with sqlite3.connect(ledger_file(site)) as connection:
            return connection.execute("SELECT * FROM lines ORDER BY seq").fetchall()
    except sqlite3.DatabaseError:
        return ledger_file(site).read_bytes()


def test_the_ledger_of_another_site_is_not_taken_for_the_own(finished: Path, tmp_path: Path):
    folder = copied(finished, tmp_path)
    shutil.copyfile(ledger_file(folder.sites[0]), ledger_file(folder.sites[1]))
    state = rehearse(folder, SHORT, "again", lambda sites: sites)
    assert state.excluded == {folder.sites[1].id: "LEDGER_TAMPERED"}


def test_an_old_ledger_is_whole_but_not_the_newest_and_a_run_that_knows_better_is_told(finished: Path, tmp_path: Path):
    """Must: refuse once the run has acknowledged a line that is missing. Must not: pay twice with one budget."""
    from tests.stories.stage import Meddler

    folder = copied(finished, tmp_path)
    victim = folder.sites[2]
    scenario = scenario_of("job.rounds=4")

    def cut(number: int) -> None:
        if number == 3:
            damage(victim, "DELETE FROM lines WHERE seq > (SELECT max(seq) FROM lines) - 2")

    state = rehearse(folder, scenario, "again", lambda sites: Meddler(sites, before_round=cut, reopened=victim))
    assert state.excluded == {victim.id: "LEDGER_ROLLED_BACK"}
    result = folder.coordinator / "again" / "result"
    assert [len(row["sites"]) for row in rounds_of(result)] == [4, 4, 3, 3]
    assert rounds_of(result)[2]["refusals"] == [{"site": "clinic-c", "code": "LEDGER_ROLLED_BACK"}]
    verdict, problems = audited(result)
    assert verdict == 1
    assert {"HEAD_MISMATCH", "ENTRY_MISSING"} & problems
    assert len(ledger_of(victim)) < run_of(result)["heads"].__len__() + 20


def audited(run: Path, capsys: pytest.CaptureFixture[str] | None = None) -> tuple[int, set[str]]:
    """Exit code and problem codes of `hushfed audit privacy RUN --json`."""
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as said, pytest.raises(SystemExit) as ended:
        console.main(["audit", "privacy", str(run), "--json"])
    found = json.loads(said.getvalue().splitlines()[-1])
    assert found["verified"] == (not found["problems"])
    return int(ended.value.code or 0), set(found["problems"])

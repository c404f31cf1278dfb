"""Whoever changes a ledger is found out: by the site itself before anything is spent, and by the audit of a run."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.secagg.manifest import read_manifest
from deploy.provision import FederationFolder, SiteFolder
from simulations.world import simulate
from tests.stories.stage import command, ledger_file, rehearse, rounds_of, run_of, scenario_of

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


def change(path: Path, edit: Callable[[list[dict[str, Any]]], None]) -> None:
    """Rewrite the JSON lines of a file."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    edit(lines)
    path.write_text("".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines))


def ledger_in(run: Path) -> Path:
    return run / "ledgers" / "clinic-b.jsonl"


def one_bit_less(run: Path) -> None:
    change(ledger_in(run), lambda lines: lines[3]["body"].update(steps=lines[3]["body"]["steps"] ^ 1))


def shorter(run: Path) -> None:
    change(ledger_in(run), lambda lines: lines.pop())


def shorter_with_a_head_that_fits(run: Path) -> None:
    """Both files agree on a ledger that lacks the charge of the counts and of the last round."""
    change(ledger_in(run), lambda lines: lines.__delitem__(slice(3, None)))
    head = json.loads(ledger_in(run).read_text().splitlines()[-1])["hash"]
    edit_run(run, lambda table: table["heads"]["clinic-b"].update(head=head))


def reordered(run: Path) -> None:
    change(ledger_in(run), lambda lines: lines.insert(1, lines.pop(3)))


def repeated(run: Path) -> None:
    change(ledger_in(run), lambda lines: lines.append(lines[-1]))


def signature_of_another_line(run: Path) -> None:
    change(ledger_in(run), lambda lines: lines[4].update(signature=lines[2]["signature"]))


def signatures_of_another_site(run: Path) -> None:
    shutil.copyfile(run / "ledgers" / "clinic-a.jsonl", ledger_in(run))


def a_smaller_epsilon(run: Path) -> None:
    edit_run(run, lambda table: table["heads"]["clinic-b"].update(epsilon=0.5))


def a_head_nobody_acknowledged(run: Path) -> None:
    edit_run(run, lambda table: table["heads"]["clinic-b"].update(head="ab" * 32))


def no_ledger(run: Path) -> None:
    ledger_in(run).unlink()


def a_smaller_promise(run: Path) -> None:
    edit_run(run, lambda table: table["job"]["privacy"].update(epsilon=0.1))


def another_unit(run: Path) -> None:
    edit_run(run, lambda table: table["job"]["privacy"].update(unit="site", delta=1e-12, epsilon=100.0))


def half_a_run(run: Path) -> None:
    """Without its second round and its counts, with heads and a job that fit."""
    change(run / "rounds.jsonl", lambda rows: rows.pop())
    heads = {}
    for ledger in sorted((run / "ledgers").iterdir()):
        change(ledger, lambda lines: lines.__delitem__(slice(3, None)))
        heads[ledger.stem] = {"head": json.loads(ledger.read_text().splitlines()[-1])["hash"], "epsilon": 2.0}

    def shorten(table: dict[str, Any]) -> None:
        table.update(heads=heads, evaluation=None)
        table["job"].update(rounds=1)
        table["job"]["privacy"]["spare_rounds"] += 1

    edit_run(run, shorten)


def another_model(run: Path) -> None:
    path = run / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x3f")


def no_statement(run: Path) -> None:
    edit_run(run, lambda table: table.pop("statement"))


def better_rounds(run: Path) -> None:
    change(run / "rounds.jsonl", lambda rows: rows[0].update(accuracy=1.0))


def edit_run(run: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    table = run_of(run)
    edit(table)
    (run / "run.json").write_text(json.dumps(table))


FORGERIES: list[tuple[Callable[[Path], None], set[str]]] = [
    (one_bit_less, {"CHAIN_BROKEN"}),
    (shorter, {"HEAD_MISMATCH"}),
    (shorter_with_a_head_that_fits, {"ENTRY_MISSING"}),
    (reordered, {"CHAIN_BROKEN"}),
    (repeated, {"CHAIN_BROKEN"}),
    (signature_of_another_line, {"SIGNATURE_INVALID"}),
    (signatures_of_another_site, {"SIGNATURE_INVALID", "SITE_MISMATCH"}),
    (a_smaller_epsilon, {"EPSILON_UNDERSTATED"}),
    (a_head_nobody_acknowledged, {"HEAD_MISMATCH"}),
    (no_ledger, {"LEDGER_MISSING"}),
    (a_smaller_promise, {"JOB_MISMATCH", "RECORD_MISMATCH"}),
    (another_unit, {"JOB_MISMATCH", "RECORD_MISMATCH"}),
    (half_a_run, {"ROUNDS_MISMATCH", "RECORD_MISMATCH"}),
    (another_model, {"MODEL_MISMATCH"}),
    (no_statement, {"RECORD_UNSIGNED"}),
    (better_rounds, {"ROUNDS_MISMATCH"}),
]


def test_an_untouched_run_passes_the_audit(finished: Path, tmp_path: Path):
    coordinator = finished / "coordinator"
    result = coordinator / "state" / "result"
    heads = {site: row["head"] for site, row in run_of(result)["heads"].items()}
    (tmp_path / "heads.json").write_text(json.dumps(heads))
    known = ["--manifest", str(coordinator / "manifest.json"), "--governance", str(coordinator / "governance.pub")]
    code, found = command("audit", "privacy", str(result), *known, "--heads", str(tmp_path / "heads.json"))
    assert (code, found["verified"], found["problems"]) == (0, True, [])
    assert all(site["recomputed"] <= site["epsilon"] + 1e-3 for site in found["sites"])


@pytest.mark.parametrize(("forge", "problems"), FORGERIES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_run_directory_that_was_changed_fails_the_audit(
    finished: Path, tmp_path: Path, forge: Callable[[Path], None], problems: set[str]
):
    """Must: exit with 1 and name the right problem, at the right site or of the whole run. Must not: claim anything."""
    run = Path(shutil.copytree(finished / "coordinator" / "state" / "result", tmp_path / "run"))
    forge(run)
    code, found = command("audit", "privacy", str(run))
    assert code == 1
    assert not found["verified"]
    assert problems <= set(found["problems"])
    assert {finding["site"] for finding in found["findings"] if finding["code"] in problems} & {"clinic-b", ""}
    assert found["epsilon"] is None
    assert all("no differential privacy is claimed" in claim for claim in found["claims"])

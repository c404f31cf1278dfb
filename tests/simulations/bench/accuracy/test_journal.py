"""A measurement that was interrupted goes on where it was, or not at all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from common.errors import Code, Refusal
from simulations.bench.accuracy import door, journal
from simulations.bench.accuracy.journal import LOCK, ROWS, journal_in, settings_of
from simulations.bench.accuracy.material import Larder
from simulations.bench.accuracy.measure import measure
from simulations.bench.accuracy.studies import STUDIES
from simulations.bench.door import app

SHORT = replace(STUDIES["digits-8"], epochs=2)
WORDS = ["privacy-accuracy", "--study", "digits-8", "--sites", "1", "--sites", "2"]
KILLED = """
import os, signal, sys
from dataclasses import replace
from simulations.bench.accuracy import door, journal
from simulations.bench.accuracy.studies import STUDIES
from simulations.bench.door import app
STUDIES["digits-8"] = replace(STUDIES["digits-8"], epochs=2)
write, left = journal.write_whole, int(sys.argv[1])
def perhaps(path, data):
    global left
    left -= 1
    if left == 0:
        path.with_name(path.name + ".part").write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)
journal.write_whole = perhaps
app(sys.argv[2:])
"""


def refused(code, act, *arguments):
    with pytest.raises(Refusal) as raised:
        act(*arguments)
    assert raised.value.code is code
    return str(raised.value)


@pytest.fixture
def row(monkeypatch):
    return measure(SHORT, 1, [0], Larder(), lambda *_, **__: None)


@pytest.fixture
def measured(monkeypatch, row):
    """What was measured, in order; each takes no time. A name in `broken` interrupts."""
    monkeypatch.setitem(STUDIES, "digits-8", SHORT)
    seen, broken = [], set()

    def quick(study, sites, seeds, larder, step):
        if sites in broken:
            raise KeyboardInterrupt
        seen.append((study.name, sites))
        return replace(row, study=study.name, sites=sites)

    monkeypatch.setattr(door, "measure", quick)
    return seen, broken


def run(out, *more, words=WORDS):
    done = CliRunner().invoke(app, [*words, "--out", str(out), "--json", *more])
    return done.exit_code, json.loads(done.stdout.splitlines()[-1])


def rows_in(out):
    table = json.loads((out / ROWS).read_text())
    return table["status"], [(row["study"], row["sites"]) for row in table["rows"]]


def test_the_same_command_goes_on_after_an_interruption(tmp_path, measured):
    """Must: keep each row from when it was measured, measure the others, give all. Must not: measure one twice."""
    out, (seen, broken) = tmp_path / "out", measured
    broken.add(2)
    assert run(out)[0] == 130
    assert rows_in(out) == ("measuring", [("digits-8", 1)])
    assert not (out / "privacy-accuracy.svg").exists()
    broken.clear()
    code, found = run(out)
    assert (code, seen) == (0, [("digits-8", 1), ("digits-8", 2)])
    assert [(row["study"], row["sites"]) for row in found["rows"]] == seen
    assert rows_in(out) == ("complete", seen)
    assert json.loads((out / ROWS).read_text())["rows"] == found["rows"]
    assert Path(found["figure"]).exists()


def test_what_is_complete_is_not_begun_again(tmp_path, measured):
    out, (seen, _) = tmp_path / "out", measured
    assert run(out)[0] == 0
    before = (out / ROWS).read_bytes()
    code, found = run(out)
    assert (code, found["refusal"]["code"]) == (3, "FILE_EXISTS")
    assert "complete" in found["refusal"]["why"]
    assert ((out / ROWS).read_bytes(), len(seen)) == (before, 2)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([*WORDS, "--seeds", "2"], "seeds"),
        (WORDS[:-2], "sites"),
        (["privacy-accuracy", "--study", "digits-3", *WORDS[3:]], "studies"),
    ],
)
def test_other_settings_are_refused_and_change_nothing(tmp_path, measured, words, told):
    out, (_, broken) = tmp_path / "out", measured
    broken.add(2)
    run(out)
    before = (out / ROWS).read_bytes()
    code, found = run(out, words=words)
    assert (code, found["refusal"]["code"]) == (3, "FILE_EXISTS")
    assert told in found["refusal"]["why"]
    assert (out / ROWS).read_bytes() == before


def test_a_study_that_is_defined_otherwise_now_or_another_release_is_another_setting(tmp_path, measured, monkeypatch):
    out, (_, broken) = tmp_path / "out", measured
    broken.add(2)
    run(out)
    with monkeypatch.context() as changed:
        changed.setitem(STUDIES, "digits-8", replace(SHORT, rate=0.5))
        assert run(out)[1]["refusal"]["code"] == "FILE_EXISTS"
    with monkeypatch.context() as changed:
        changed.setattr(journal, "versions", lambda: {"torch": "1.0"})
        assert "versions" in run(out)[1]["refusal"]["why"]


@pytest.mark.parametrize("content", ["{}", "", "[1]", '{"rows": [{}], "status": "measuring", "settings": {}}'])
def test_a_damaged_or_foreign_file_is_refused(tmp_path, content):
    (tmp_path / ROWS).write_text(content)
    refused(Code.DATA_INVALID, journal_in(tmp_path, settings_of([SHORT], [1], 1)).__enter__)
    assert (tmp_path / ROWS).read_text() == content


def test_a_folder_with_anything_else_is_refused(tmp_path):
    (tmp_path / "notes").write_text("mine")
    for _ in range(2):
        refused(Code.FILE_EXISTS, journal_in(tmp_path, settings_of([SHORT], [1], 1)).__enter__)
        assert {path.name for path in tmp_path.iterdir()} <= {"notes", LOCK}
        (tmp_path / LOCK).touch()


def test_two_measurements_do_not_share_a_folder(tmp_path):
    settings = settings_of([SHORT], [1], 1)
    with journal_in(tmp_path / "out", settings):
        refused(Code.ALREADY_RUNNING, journal_in(tmp_path / "out", settings).__enter__)


@pytest.mark.parametrize("writes", [1, 2, 4])
def test_killed_in_the_middle_of_a_write_the_rows_before_it_are_whole(tmp_path, writes):
    """The real command and SIGKILL: before the first row, at the second one, at the figure. Then the same again."""
    out = tmp_path / "out"
    words = [*WORDS, "--out", str(out), "--json"]
    told = {"capture_output": True, "env": os.environ | {"PYTHONPATH": str(Path(__file__).parents[4])}, "timeout": 120}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(writes), *words], check=False, **told)
    assert killed.returncode == -signal.SIGKILL
    if writes > 1:
        assert rows_in(out) == ("measuring", [("digits-8", sites) for sites in (1, 2)][: writes - 2])
    again = subprocess.run([sys.executable, "-c", KILLED, "1000", *words], check=False, **told)
    assert again.returncode == 0
    assert rows_in(out) == ("complete", [("digits-8", 1), ("digits-8", 2)])

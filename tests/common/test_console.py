"""The command line: every ending has its exit code, every refusal can be read by people and by programs."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import typer

from common import console
from common.errors import Code, Refusal

SCOPE: dict[str, typer.Typer] = {}


def door(name: str, **commands) -> EntryPoint:
    """A registered door with these commands, as if a wheel had brought it."""
    app = typer.Typer()
    for word, function in commands.items():
        app.command(word)(console.guarded(function))
    SCOPE[name] = app

    class Registered(EntryPoint):
        def load(self):
            return SCOPE[name]

    return Registered(name, "common.console:main", console.GROUP)


@pytest.fixture
def hushfed(monkeypatch, capsys):
    """Run the command line with given doors; returns (exit code, standard output, standard error)."""

    def run(doors: list[EntryPoint], *words: str) -> tuple[int, str, str]:
        def registered(group: str, name: str | None = None):
            return [entry for entry in doors if name in (None, entry.name)]

        monkeypatch.setattr(console, "entry_points", registered)
        with pytest.raises(SystemExit) as end:
            console.main(words)
        out, err = capsys.readouterr()
        return end.value.code, out, err

    return run


def works(json: bool = typer.Option(False, "--json"), size: int = 1) -> None:
    console.emit({"status": "completed", "size": size}, json=json)


def fails(json: bool = typer.Option(False, "--json")) -> console.Exit:
    console.emit({"verdict": "FAIL"}, json=json)
    return console.Exit.FAIL


def refuses(json: bool = typer.Option(False, "--json")) -> None:
    raise Refusal(Code.BUDGET_EXHAUSTED, "Round 4 [not] run", "3.1 > 3.0", "Ask for fewer rounds")


def breaks(json: bool = typer.Option(False, "--json")) -> None:
    private = "age 71"
    raise ZeroDivisionError(len(private))


def stops(json: bool = typer.Option(False, "--json")) -> None:
    raise KeyboardInterrupt


def lacks(json: bool = typer.Option(False, "--json")) -> None:
    raise ModuleNotFoundError("No module named 'fairlearn.metrics'", name="fairlearn.metrics")


def verifies(run: Path, *, json: bool = typer.Option(False, "--json"), tolerance: float | None = None) -> None:
    console.emit({"run": run, "tolerance": tolerance}, json=json)


def last(out: str) -> dict:
    """The JSON object on the last line of standard output."""
    return json.loads(out.splitlines()[-1])


def test_a_result_with_json_is_one_object_on_the_last_line(hushfed):
    code, out, err = hushfed([door("box", open=works)], "box", "open", "--json", "--size", "3")
    assert (code, last(out), err) == (0, {"status": "completed", "size": 3}, "")


def test_a_result_without_json_is_for_a_person(hushfed):
    code, out, _ = hushfed([door("box", open=works)], "box", "open")
    assert code == 0
    assert "status" in out
    assert "{" not in out


def test_a_verdict_becomes_the_exit_code(hushfed):
    code, out, _ = hushfed([door("box", check=fails)], "box", "check", "--json")
    assert (code, last(out)["verdict"]) == (1, "FAIL")


def test_a_refusal_is_printed_for_people_on_standard_error(hushfed):
    code, out, err = hushfed([door("box", open=refuses)], "box", "open")
    assert (code, out) == (3, "")
    for part in ("Round 4 [not] run", "3.1 > 3.0", "Ask for fewer rounds", "BUDGET_EXHAUSTED"):
        assert part in err


def test_a_refusal_with_json_is_the_last_line_and_standard_error_stays_silent(hushfed):
    code, out, err = hushfed([door("box", open=refuses)], "box", "open", "--json")
    assert (code, err) == (3, "")
    assert last(out)["refusal"]["code"] == "BUDGET_EXHAUSTED"
    assert set(last(out)["refusal"]) == {"code", "what", "why", "do"}


@pytest.mark.parametrize(
    "words",
    [
        ["box", "open", "--sise", "2"],
        ["box", "open", "--size", "two"],
        ["box", "open", "extra"],
        ["box", "shut"],
        ["bax"],
        ["--colour"],
    ],
)
def test_what_cannot_be_read_is_refused_in_both_ways(hushfed, words):
    doors = [door("box", open=works, check=fails)]
    code, out, err = hushfed(doors, *words)
    assert (code, out) == (3, "")
    assert "CONFIG_INVALID" in err
    code, out, _ = hushfed(doors, *words, "--json")
    assert code == 3
    assert last(out)["refusal"]["code"] == "CONFIG_INVALID"


def test_an_unexpected_error_is_one_refusal_and_a_private_log_but_no_traceback(hushfed, tmp_path, monkeypatch):
    monkeypatch.setattr(console.tempfile, "tempdir", str(tmp_path))
    code, out, err = hushfed([door("box", open=breaks)], "box", "open", "--json")
    (log,) = tmp_path.iterdir()
    assert (code, err) == (3, "")
    assert last(out)["refusal"]["code"] == "INTERNAL"
    assert str(log) in last(out)["refusal"]["do"]
    assert "ZeroDivisionError" in log.read_text()
    assert "age 71" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_developer_may_ask_for_the_traceback(hushfed, tmp_path, monkeypatch):
    monkeypatch.setattr(console.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HUSHFED_DEBUG", "1")
    assert "Traceback" in hushfed([door("box", open=breaks)], "box", "open")[2]


def test_an_interrupt_ends_with_130(hushfed):
    code, out, err = hushfed([door("box", open=stops)], "box", "open")
    assert (code, out, err.strip()) == (130, "", "interrupted")


def test_an_interrupt_with_json_is_still_one_object_on_the_last_line(hushfed):
    code, out, err = hushfed([door("box", open=stops)], "box", "open", "--json")
    assert (code, last(out), err) == (130, {"status": "interrupted"}, "")


def test_a_place_that_cannot_be_written_is_a_refusal_and_no_fault(hushfed, tmp_path, monkeypatch):
    def full(json: bool = typer.Option(False, "--json")) -> None:
        (tmp_path / "file" / "result").write_text("never")

    monkeypatch.setattr(console.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "file").touch()
    code, out, _ = hushfed([door("box", open=full)], "box", "open", "--json")
    assert (code, last(out)["refusal"]["code"]) == (3, "FILE_UNWRITABLE")
    assert str(tmp_path / "file") in last(out)["refusal"]["what"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "no log of a fault"


def test_letters_that_move_the_cursor_are_never_printed(hushfed):
    """Must: show names of others escaped. Must not: let one erase a line, forge one, or turn its direction."""
    evil = "clinic\x1b[2K\rok\n\u202eδ"

    def shows(json: bool = typer.Option(False, "--json")) -> None:
        console.emit({"name": evil, "sites": [{evil: evil}], "all": [evil]}, json=json)

    def refuses_it(json: bool = typer.Option(False, "--json")) -> None:
        raise Refusal(Code.DATA_INVALID, evil, evil, evil)

    doors = [door("box", open=shows, shut=refuses_it)]
    for printed in (hushfed(doors, "box", "open")[1], hushfed(doors, "box", "shut")[2]):
        assert r"clinic\x1b[2K\rok\n\u202eδ" in printed
        assert not any(char in printed for char in "\x1b\r\u202e")
    assert last(hushfed(doors, "box", "open", "--json")[1])["name"] == evil


def test_a_missing_part_names_the_extra_that_brings_it(hushfed):
    code, out, _ = hushfed([door("box", open=lacks)], "box", "open", "--json")
    assert (code, last(out)["refusal"]["code"]) == (3, "PART_MISSING")
    assert "hushfed[audit]" in last(out)["refusal"]["do"]


def test_a_door_that_cannot_be_imported_closes_no_other(hushfed):
    doors = [EntryPoint("torn", "no_such_library.door:app", console.GROUP), door("box", open=works, check=fails)]
    code, out, _ = hushfed(doors, "torn", "--json")
    assert (code, last(out)["refusal"]["code"]) == (3, "PART_MISSING")
    assert hushfed(doors, "box", "open", "--json")[0] == 0
    code, out, _ = hushfed(doors, "--help")
    assert code == 0
    assert "box" in out
    assert "not in this installation" in out


def test_help_lists_the_doors_without_importing_them(hushfed):
    class Shut(EntryPoint):
        def load(self):
            raise AssertionError("imported")

    code, out, _ = hushfed([Shut("box", "common.errors:app", console.GROUP)], "--help")
    assert code == 0
    assert "The family of refusals" in out
    assert hushfed([Shut("box", "common.errors:app", console.GROUP)])[:2] == (0, out)


def test_a_command_named_like_its_door_needs_no_second_word(hushfed):
    assert last(hushfed([door("demo", demo=works)], "demo", "--json")[1])["status"] == "completed"
    assert last(hushfed([door("demo", command=works)], "demo", "--json")[1])["status"] == "completed"


def test_a_group_of_one_command_stays_a_group(hushfed):
    doors = [door("models", list=works)]
    assert hushfed(doors, "models", "list", "--json")[0] == 0
    code, out, _ = hushfed(doors, "models")
    assert code == 0
    assert "list" in out


def test_a_plain_function_is_a_door_too(hushfed):
    entry = door("demo")
    SCOPE["demo"] = console.guarded(works)
    assert last(hushfed([entry], "demo", "--json", "--size", "2")[1]) == {"status": "completed", "size": 2}


def test_settings_may_be_keyword_only_and_typed(hushfed):
    words = ("audit", "verify", "trial", "--tolerance", "0.1", "--json")
    code, out, _ = hushfed([door("audit", verify=verifies)], *words)
    assert (code, last(out)) == (0, {"run": "trial", "tolerance": 0.1})


def test_the_version_is_told(hushfed):
    code, out, _ = hushfed([], "--version")
    assert code == 0
    assert out.startswith("hushfed 0")


def test_an_undefined_number_must_be_none_and_not_nan(capsys):
    with pytest.raises(ValueError, match="JSON"):
        console.emit({"rate": float("nan")}, json=True)
    console.emit({"rate": None, "run": Path("a/b")}, json=True)
    assert last(capsys.readouterr().out) == {"rate": None, "run": "a/b"}


def test_nested_results_and_tables_are_laid_out_for_people(capsys):
    console.emit({"privacy": {"epsilon": 2.98765, "claimed": True}, "sites": [{"site": "[a]", "n": None}]}, json=False)
    out = capsys.readouterr().out
    assert "privacy.epsilon" in out
    assert "2.988" in out
    assert "[a]" in out


def test_progress_is_silent_when_piped(capsys):
    with console.progress("Rounds", total=2) as step:
        step()
        step(note="loss 0.4")
    assert capsys.readouterr() == ("", "")


def test_nothing_is_coloured_in_a_pipe():
    words = [sys.executable, "-c", "from common import console; console.main(['nothing', '--json'])"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "\x1b" not in done.stdout + done.stderr
    assert last(done.stdout)["refusal"]["code"] == "CONFIG_INVALID"

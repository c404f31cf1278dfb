"""Results for a person: nothing broken, nothing forged, no figure of privacy rounded to the better side."""

from __future__ import annotations

import pytest
import typer

from common import console
from common.errors import Code, Refusal


def test_sentences_are_wrapped_one_a_paragraph_and_no_word_of_a_table_is_broken(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    claims = ["Site a: " + "all that was released is counted here " * 5, "Site b: nothing was released."]
    rows = [{"site": "clinic-a", "true_positive_rate": 0.5, "a_head": "ab" * 20}]
    console.emit({"claims": claims, "sites": rows, "wide": [rows[0] | {"other": "cd" * 20}]}, json=False)
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "\n  Site a: all" in out
    assert "\n  Site b: nothing" in out
    assert out.count("ab" * 20) == 2
    assert "cd" * 20 in out


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("epsilon", 1.23411, "1.235"),
        ("sigma", 1.00001, "1.001"),
        ("delta", 1.00001e-5, "1.001e-05"),
        ("epsilon", 3.0, "3"),
        ("epsilon", 3.000000000000004, "3"),
        ("left", 1.23499, "1.234"),
        ("noise_multiplier", 0.98769, "0.9876"),
        ("accuracy", 0.71236, "0.7124"),
        ("seconds", 0.25, "0.25 s"),
        ("bytes", 2048, "2048 bytes"),
    ],
)
def test_no_figure_of_privacy_is_rounded_to_the_better_side(capsys, name, value, shown):
    console.emit({name: value, "sites": [{"of": {name: value}}]}, json=False)
    first, *table = capsys.readouterr().out.splitlines()
    assert first.split(maxsplit=1)[1] == shown
    assert any(f"{shown} " in line for line in table)


def test_paths_are_short_for_people_and_whole_for_programs(capsys, monkeypatch, tmp_path):
    """Must not: make a line longer than the page where nothing forces it, or change what programs read."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/keeper-of-clinic-a")
    found = {
        "run": tmp_path / "fed" / "run",
        "home": "/home/keeper-of-clinic-a/x",
        "elsewhere": f"/elsewhere{tmp_path}/run",
        "do": f"hushfed server resume {tmp_path}/fed/job.toml --federation {tmp_path}/fed",
        "status": "ok",
    }
    console.emit(found, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "fed/run"]
    assert lines[1].split() == ["home", "~/x"]
    assert lines[2:4] == [f"{'elsewhere':<18}", f"  /elsewhere{tmp_path}/run"]
    assert "  hushfed server resume fed/job.toml --federation fed" in lines
    console.emit(found, json=True)
    assert f'"run": "{tmp_path}/fed/run"' in capsys.readouterr().out


def test_a_long_refusal_hangs_below_its_label(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.chdir(tmp_path)

    @console.guarded
    def door(*, json: bool = False) -> None:
        raise Refusal(Code.FILE_MISSING, f"{tmp_path}/site.toml not read", "there is no such file " * 6, "Write it")

    with pytest.raises(typer.Exit):
        door()
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0] == "refused: site.toml not read"
    assert lines[1].startswith("    why: there is no")
    assert lines[2].startswith("         ")
    assert lines[-2:] == ["     do: Write it.", "   code: FILE_MISSING"]

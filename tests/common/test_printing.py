"""Results for a person: nothing broken, nothing forged, no figure of privacy rounded to the better side."""

from __future__ import annotations

import pytest

from common import console


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

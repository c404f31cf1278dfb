"""Measurements of secure aggregation: both peers play real rounds, and a row says how it came about."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree

import pytest
from typer.testing import CliRunner

import simulations.bench.secagg as own
from common.errors import Code, Refusal
from simulations.bench import secagg_flower
from simulations.bench.chart import draw
from simulations.bench.door import app
from simulations.bench.rows import Case, Row

SMALL = ["secagg", "--d", "1000", "--d", "2000", "--n", "6", "--dropout", "0.34", "--peer", "flower"]


def silent(*_: float) -> None:
    """No progress bar."""


def run(*words: str):
    done = CliRunner().invoke(app, list(words))
    return done.exit_code, done.stdout


def by_role(rows: list[Row]) -> dict[str, Row]:
    return {row.role: row for row in rows}


def test_the_command_prints_rows_with_the_keys_of_the_contract(tmp_path):
    code, printed = run(*SMALL, "--out", str(tmp_path / "out"), "--json")
    assert code == 0
    found = json.loads(printed.splitlines()[-1])
    assert [(row["peer"], row["role"], row["d"]) for row in found["rows"]] == [
        (peer, role, d)
        for d in (1000, 2000)
        for peer, role in (
            ("hushfed", "site"), ("hushfed", "unmasking"), ("hushfed", "server"),
            ("flower", "site"), ("flower", "server"),
        )
    ]  # fmt: skip
    for row in found["rows"]:
        assert {"peer", "role", "d", "n", "m", "dropout", "cpu_seconds", "bytes_up"} <= row.keys()
        assert row["cpu_seconds"] > 0
        assert row["computed"] is False
    assert json.loads((tmp_path / "out" / "rows.json").read_text())["rows"] == found["rows"]
    assert ElementTree.fromstring((tmp_path / "out" / "secagg.svg").read_text()).tag.endswith("svg")


def test_without_json_it_prints_a_table_and_a_filled_folder_is_refused(tmp_path):
    (tmp_path / "kept").write_text("mine")
    assert run(*SMALL, "--out", str(tmp_path))[0] == 3
    assert run("secagg", "--full", "--n", "10")[0] == 3
    code, printed = run("secagg", "--d", "1000", "--n", "4")
    assert code == 0
    assert "unmasking" in printed


@pytest.mark.parametrize("words", [("--dropout", "nan"), ("--budget", "nan"), ("--budget", "inf")])
def test_a_share_or_budget_that_is_no_finite_number_is_refused(words):
    code, printed = run("secagg", "--d", "100", "--n", "4", "--json", *words)
    assert code == 3
    assert json.loads(printed.splitlines()[-1])["refusal"]["code"] == "CONFIG_INVALID"


@pytest.mark.parametrize("bits", ["0", "-1", "17", "64"])
def test_a_width_that_no_ring_has_is_refused_by_its_name_before_anything_is_measured(bits):
    code, printed = run("secagg", "--d", "100", "--n", "4", "--json", "--bits", bits)
    refusal = json.loads(printed.splitlines()[-1])["refusal"]
    assert (code, refusal["code"], refusal["what"]) == (3, "CONFIG_INVALID", f"--bits {bits}")
    assert "16, 20, 24, 28, 32" in refusal["why"]


def test_lost_sites_are_spread_and_counted():
    case = Case(d=1, n=100, dropout=0.3)
    assert (len(case.lost), case.reporting) == (30, 70)
    assert Case(d=1, n=10, dropout=0.0).lost == frozenset()
    assert max(case.lost) > 90


def test_bytes_are_those_of_the_messages():
    """Packed lanes and a fixed size a mask: upload in suite 2 is 3 bytes a parameter and 1.1 kB an unmasking site."""
    case = Case(d=10_000, n=8, dropout=0.25)
    rows = by_role(own.measure(case, own.Settings(m=3), 60, silent))
    assert 30_000 + 3 * 1088 < rows["site"].bytes_up < 30_000 + 3 * 1100 + 300
    assert rows["server"].bytes_up == 6 * rows["site"].bytes_up + 3 * rows["unmasking"].bytes_up
    flower = by_role(secagg_flower.measure(case, 60, silent))
    assert flower["site"].bytes_up > 2.3 * rows["site"].bytes_up


def test_what_was_not_played_whole_says_so():
    """Must: mark what is multiplied. Must not: mark, or compute, the one site that is always measured."""
    case = Case(d=1000, n=60, dropout=0.1)
    for rows in (own.measure(case, own.Settings(m=5), 0.02, silent), secagg_flower.measure(case, 0, silent)):
        assert {row.role: row.computed for row in rows if row.role != "unmasking"} == {"site": False, "server": True}
    whole = by_role(own.measure(case, own.Settings(m=5), 60, silent))
    parts = by_role(own.measure(case, own.Settings(m=5), 0.02, silent))
    assert parts["server"].bytes_up == whole["server"].bytes_up
    assert not any(row.computed for row in whole.values())


def test_a_sum_that_is_not_exact_is_no_measurement(monkeypatch):
    monkeypatch.setattr(own, "lift", lambda ring, lanes: lanes.astype("int64") + 1)
    with pytest.raises(Refusal) as caught:
        own.measure(Case(d=100, n=4, dropout=0.0), own.Settings(m=2), 60, silent)
    assert caught.value.code is Code.E_SUM_CHECK


def test_a_wrong_mean_of_the_peer_is_no_measurement(monkeypatch):
    monkeypatch.setattr(secagg_flower, "EXAMPLES", 10**6)  # its sum overflows, as tests/attacks shows
    with pytest.raises(ValueError, match="Flower"):
        secagg_flower.measure(Case(d=100, n=4, dropout=0.0), 60, silent)


def test_computed_dots_are_hollow():
    row = {"d": 10, "n": 5, "m": 2, "dropout": 0.0, "bytes_up": 1}
    both = [
        Row(peer="hushfed", role="server", cpu_seconds=0.1, **row),
        Row(peer="flower", role="server", cpu_seconds=1000.0, computed=True, **row),
    ]
    picture = draw(both)
    assert picture.count("<circle") == 5
    assert picture.count('style="fill:#fffefb"') == 2
    assert "10000 ×" in picture

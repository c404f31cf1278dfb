"""The page of a run without masks: nothing on it looks audited, and a large population is told in a few lines."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from common.participation import MOST_BARS, attendance
from simulations.audits.runs import MOST_LISTED
from simulations.report.comparison import compare
from simulations.report.page import build
from tests.simulations.recorded import edit, edit_rounds, write_run
from tests.simulations.simulated import exact_run


def text_of(page: str) -> str:
    bare = re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", "", bare).split())


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exact_run(tmp_path_factory.mktemp("few") / "run")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exact_run(tmp_path_factory.mktemp("many") / "run", "many")


def found(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "audit.json").read_text())
    return read


@pytest.mark.parametrize("size", ["few", "many"])
def test_page_and_card_say_that_nothing_was_charged_or_masked(size: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(size)
    page, card = text_of((run / "report.html").read_text()), " ".join((run / "card.md").read_text().split())
    for text in (page, card):
        assert "Nothing was charged and nothing masked, so there is nothing to audit" in text
        assert "no test of secure aggregation" in text
        assert "no record left" not in text
        assert "masked report" not in text
        assert "summed under secure aggregation" not in text
        assert "signed ledgers" not in text
    assert "Privacy audit: **INCONCLUSIVE**" in card
    assert "exact, formed in the open" in page
    assert "sums formed without masks, engine " in card
    assert 'href="#attacks"' not in (run / "report.html").read_text()


def test_no_large_figure_shows_an_epsilon(few: Path) -> None:
    """The planned one stands in words that say so; the place of an audited one holds a dash."""
    page = (few / "report.html").read_text()
    figures = re.findall(r'<b class="figure-value">(.*?)</b><span>(.*?)</span>', page)
    (shown,) = [value for value, words in figures if "ε" in words]
    assert shown == "—"
    assert "none was spent; planned for a deployment" in page


def test_few_sites_are_told_one_by_one(few: Path) -> None:
    rows = found(few)["participation"]
    assert [(row["site"], row["rounds"], row["of"]) for row in rows] == [(f"clinic-{x}", 3, 3) for x in "abc"]
    page = (few / "report.html").read_text()
    assert "Participation by site and round" in page
    assert "Organisation" not in page
    assert "How often sites took part" not in page


def test_many_sites_are_counted_and_never_listed(many: Path) -> None:
    """Must: say how many took part and how often. Must not: name one."""
    told, page = found(many), (many / "report.html").read_text()
    assert told["participation"] == []
    attended = told["attendance"]
    assert attended["sites"] == 3000
    assert 30 <= attended["trained"] <= attended["reports"] <= 60
    assert sum(row["sites"] for row in attended["often"]) == 3000
    assert told["refusals"] == [{"site": None, "code": "SITE_UNREACHABLE", "count": one, "sites": one}
                                for one in [told["refusals"][0]["count"]]]  # fmt: skip
    for text in (page, (many / "card.md").read_text()):
        assert not re.search(r"clinic-\d", text)
    assert len(page) < 60_000
    assert "How often sites took part" in page
    assert "Reports in the sum, round by round" in page


def test_the_page_does_not_grow_with_cohort_or_population(many: Path, tmp_path: Path) -> None:
    huge = exact_run(tmp_path / "huge", "many")
    edit(huge, lambda facts: facts.update(population=10**6))

    def crowd(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["sites"] = [f"clinic-{row['round'] * 8192 + i}" for i in range(8192)]
            row["bytes"] = dict.fromkeys(row["sites"], 512)
            row["refusals"] = [{"site": f"clinic-{i}", "code": "SITE_UNREACHABLE"} for i in range(900_000, 902_000)]

    edit_rounds(huge, crowd)
    build(huge)
    small, large = ((run / "report.html").stat().st_size for run in (many, huge))
    assert large < small + 4000
    small, large = ((run / "audit.json").stat().st_size for run in (many, huge))
    assert large < small + 4000
    attended = found(huge)["attendance"]
    assert (attended["sites"], attended["trained"], attended["reports"]) == (10**6, 3 * 8192, 3 * 8192)
    assert found(huge)["refusals"] == [{"site": None, "code": "SITE_UNREACHABLE", "count": 6000, "sites": 2000}]


def test_a_record_that_does_not_hold_is_said_on_the_page(tmp_path: Path) -> None:
    run = exact_run(tmp_path / "run")
    edit(run, lambda facts: facts["planned"].update(epsilon=0.1))
    page = text_of(build(run).read_text())
    assert "The record does not hold." in page
    assert "JOB_MISMATCH" in page
    assert "ε: the audit failed, so none is stated" in page
    assert "Planned: a deployment" not in page


def test_a_comparison_keeps_planned_and_audited_figures_apart(few: Path, tmp_path: Path) -> None:
    page = compare(few, write_run(tmp_path / "run", rounds=6), tmp_path / "comparison.html").read_text()
    rows = dict(re.findall(r'<td data-label="">(.*?)</td>(.*?)</tr>', page, flags=re.DOTALL))
    cells = {name: re.findall(r"<span>(.*?)</span></td>", rest) for name, rest in rows.items()}
    assert cells["Verdict"] == ["INCONCLUSIVE", "PASS"]
    assert cells["ε, largest over sites, this run"][0] == "—"
    assert "<data" in cells["ε, largest over sites, this run"][1]
    assert "<data" in cells["ε, planned, of a deployment’s site in every round"][0]
    assert cells["ε, planned, of a deployment’s site in every round"][1] == "—"


def test_attendance_is_whole_and_bounded() -> None:
    """However often sites took part: few bars, every site in one of them."""
    rounds = [{"sites": [f"s{i}" for i in range(n % 40 + 1)]} for n in range(400)]
    attended = attendance(1000, rounds)
    assert (attended["trained"], attended["fewest"], attended["most"]) == (40, 1, 40)
    assert attended["reports"] == sum(len(row["sites"]) for row in rounds)
    assert len(attended["often"]) <= MOST_BARS + 1
    assert sum(row["sites"] for row in attended["often"]) == 1000
    spans = [(row["low"], row["high"]) for row in attended["often"]]
    assert spans[0] == (0, 0)
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    assert attendance(3, [])["often"] == [{"low": 0, "high": 0, "sites": 3}]
    assert MOST_LISTED == 64

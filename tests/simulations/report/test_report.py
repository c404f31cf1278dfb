"""The page, the card and audit.json of one run: self-contained, repeatable, escaped, every number from JSON."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simulations.audits.fairness import Tolerance
from simulations.report.comparison import compare
from simulations.report.door import app
from simulations.report.page import build
from simulations.report.words import ACCURACIES
from tests.simulations.recorded import edit, edit_rounds, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = write_run(tmp_path_factory.mktemp("report") / "run", rounds=6)
    build(folder, tolerance=Tolerance(difference=0.1))
    return folder


class Reader(HTMLParser):
    """Text outside styles, marked values, and everything that a browser could fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.values: list[str] = []
        self.fetched: list[str] = []
        self.text: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "link", "br"}:
            self._open.append(tag)
        named = dict(attrs)
        if tag == "data":
            self.values.append(named["value"] or "")
        self.fetched += [value or "" for name, value in attrs if name in {"src", "href", "action", "data", "srcset"}]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if not {"style", "data", "text", "title", "code", "summary"} & set(self._open):
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def everything(value: Any) -> list[Any]:
    """All scalars of a JSON value, and the lengths of its lists."""
    if isinstance(value, dict):
        return [*value, *(scalar for part in value.values() for scalar in everything(part))]
    if isinstance(value, list):
        return [len(value), *(scalar for part in value for scalar in everything(part))]
    return [value]


def known(run: Path) -> list[Any]:
    rounds = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    return everything([json.loads((run / name).read_text()) for name in ("audit.json", "run.json")] + rounds)


def test_every_number_of_the_page_stands_in_the_json(run: Path):
    scalars = known(run)
    numbers = {json.dumps(value) for value in scalars if isinstance(value, int | float)}
    words = " ".join(str(value) for value in scalars)
    reader = read((run / "report.html").read_text())
    assert len(reader.values) > 100
    assert [value for value in reader.values if value not in numbers] == []
    loose = re.findall(r"\d+(?:\.\d+)?", " ".join(reader.text).replace("95\u202f%", ""))
    assert [number for number in loose if number not in words] == []


def test_the_page_asks_nothing_of_the_network_and_runs_no_script(run: Path):
    page = (run / "report.html").read_text()
    fetched = read(page).fetched
    assert all(target.startswith("#") or target == "data:," for target in fetched)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert not re.search(r"<script|javascript:|\son\w+=|@import|url\(|https?://", page)


def test_equal_runs_give_equal_bytes(run: Path, tmp_path: Path):
    other = write_run(tmp_path / "elsewhere", rounds=6)
    build(other, tolerance=Tolerance(difference=0.1))
    for name in ("report.html", "card.md", "audit.json"):
        assert (other / name).read_bytes() == (run / name).read_bytes()


def test_building_again_changes_nothing_and_leaves_no_scraps(run: Path):
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    assert build(run, tolerance=Tolerance(difference=0.1)) == run / "report.html"
    assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before


def test_names_from_a_run_are_escaped_on_page_and_card(tmp_path: Path):
    evil = '<img src=x onerror=alert(1)>" \n# heading | \u202e'

    def spoil(facts: dict[str, Any]) -> None:
        facts["job"]["name"] = facts["job"]["dataset"] = facts["manifest"]["sites"][0]["org"] = evil
        facts["versions"] = {evil: evil}
        facts["evaluation"]["cells"] = [cell.replace("female", "<b>x") for cell in facts["evaluation"]["cells"]]

    folder = write_run(tmp_path / "evil", rounds=6, change=spoil)
    page = build(folder).read_text()
    assert "<img" not in page
    assert "<b>x" not in page
    card = (folder / "card.md").read_text()
    assert "<img" not in card
    assert "\n# heading" not in card


def test_a_run_with_little_to_tell_still_gets_a_page(tmp_path: Path):
    """As a real federation leaves it: no baselines, no exact accuracy, no counts, no live metrics."""

    def strip(facts: dict[str, Any]) -> None:
        facts |= {"baselines": None, "accuracy": None, "evaluation": None}
        for name in ("seeds", "fingerprints", "ended", "seconds"):
            facts.pop(name)

    folder = write_run(tmp_path / "bare", rounds=6, change=strip)
    rounds = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    bare = [row | {"loss": None, "accuracy": None} for row in rounds]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bare))
    page = build(folder).read_text()
    assert "No accuracy was measured" in page
    assert "the run released no counts by group" in page


def test_failed_and_void_audits_are_said_aloud(tmp_path: Path):
    folder = write_run(tmp_path / "replayed", rounds=6, noise="replay")
    page = build(folder).read_text()
    assert "No privacy is claimed." in page
    assert "NOISE_REPLAY" in page
    assert "∞" in page


def test_of_a_run_whose_audit_failed_neither_tile_nor_card_nor_comparison_states_an_epsilon(run: Path, tmp_path: Path):
    """Must: say that none is stated. Must not: show one that the ledgers do not support, or call it boundless."""
    failed = write_run(tmp_path / "failed", rounds=6, change=lambda facts: facts["job"]["privacy"].update(epsilon=0.5))
    page = build(failed).read_text()
    tiles = page[page.index('<div class="figures">') : page.index('<section id="privacy">')]
    assert "the audit failed, so none is stated" in tiles
    assert "∞" not in tiles
    card = (failed / "card.md").read_text()
    assert "**FAIL**" in card
    assert "differential privacy for one" not in card
    shown = compare(run, failed, tmp_path / "compared.html").read_text()
    row = shown[shown.index("ε, largest") :].split("</tr>")[0]
    assert row.count("<data") == 1


def test_page_card_and_comparison_name_an_accuracy_alike_and_give_its_interval(run: Path, tmp_path: Path):
    folder = write_run(tmp_path / "known", rounds=6, change=lambda facts: facts["baselines"].update(records=400))
    page, card = build(folder).read_text(), (folder / "card.md").read_text()
    learning = json.loads((folder / "audit.json").read_text())["learning"]
    low, high = learning["accuracy_interval"]
    assert low == pytest.approx(0.6959, abs=1e-3)  # Wilson 1927 by hand: 0.741 of 400
    assert high == pytest.approx(0.7815, abs=1e-3)
    for name in ACCURACIES.values():
        assert name in card
    assert ACCURACIES["accuracy"].lower() in page
    for end in (low, high):
        assert f"{100 * end:.1f}\u202f%" in page
        assert f"{100 * end:.1f} %" in card
    assert json.loads((run / "audit.json").read_text())["learning"]["accuracy_interval"] is None


def test_what_nobody_set_a_tolerance_for_is_not_judged(run: Path):
    """Must: judge the differences. Must not: call a ratio inconclusive beside them."""
    for name in ("report.html", "card.md"):
        rows = [line for line in (run / name).read_text().splitlines() if "smallest to largest" in line]
        assert rows
    card = [line for line in (run / "card.md").read_text().splitlines() if "smallest to largest" in line]
    assert all(line.endswith("| not judged |") for line in card)


def test_lines_and_their_keys_are_told_apart_by_dashes_too(run: Path):
    page = (run / "report.html").read_text()
    style = (page[page.index("<style>") : page.index("</style>")]).replace(" ", "")
    dashes = [re.search(rf"svg\.line\.s{i}{{stroke-dasharray:([^;]+);}}", style) for i in range(1, 6)]
    assert len({found.group(1) for found in dashes if found}) == 5
    assert page.count('class="swatch"') >= 6


def test_audit_json_holds_both_audits(run: Path):
    found = json.loads((run / "audit.json").read_text())
    assert found["schema"] == 1
    assert found["privacy"]["verified"] is True
    assert found["fairness"]["verdict"] == "INCONCLUSIVE"
    model = next(file for file in found["artifacts"] if file["name"] == "model.safetensors")
    assert model["bytes"] == (run / "model.safetensors").stat().st_size


def test_the_card_opens_with_front_matter_and_has_mitchells_sections(run: Path):
    card = (run / "card.md").read_text()
    assert card.startswith("---\nlibrary_name: hushfed\n")
    wanted = [
        "Model details", "Intended use", "Factors", "Metrics", "Evaluation data", "Training data",
        "Quantitative analyses", "Ethical considerations", "Caveats and recommendations",
    ]  # fmt: skip
    assert [line.removeprefix("## ") for line in card.splitlines() if line.startswith("## ")] == wanted
    assert "add or remove one" in card


def test_report_build_and_its_short_form(run: Path):
    for words in (["build", str(run)], [str(run)]):
        outcome = CliRunner().invoke(app, [*words, "--tolerance", "0.1", "--json"])
        assert outcome.exit_code == 0, outcome.stdout
        assert json.loads(outcome.stdout.splitlines()[-1])["report"] == str(run / "report.html")


def test_report_of_nothing_is_refused(tmp_path: Path):
    outcome = CliRunner().invoke(app, ["build", str(tmp_path), "--json"])
    assert outcome.exit_code == 3
    assert json.loads(outcome.stdout.splitlines()[-1])["refusal"]["code"] == "FILE_MISSING"
    assert list(tmp_path.iterdir()) == []


def test_two_runs_are_compared_on_one_page(run: Path, tmp_path: Path):
    other = write_run(tmp_path / "other", rounds=6, change=lambda facts: facts["job"].update(name="shorter"))
    out = tmp_path / "comparison.html"
    outcome = CliRunner().invoke(app, ["compare", str(run), str(other), "--out", str(out), "--json"])
    assert outcome.exit_code == 0, outcome.stdout
    page = out.read_text()
    assert "diabetes-progression and shorter" in page
    read(page)
    assert compare(run, other, tmp_path / "again.html").read_text() == page


@pytest.mark.parametrize("taken", ["a file", "a folder"])
def test_a_comparison_overwrites_nothing(run: Path, tmp_path: Path, taken: str):
    out = tmp_path / "mine.html"
    out.mkdir() if taken == "a folder" else out.write_text("mine")
    outcome = CliRunner().invoke(app, ["compare", str(run), str(run), "--out", str(out), "--json"])
    assert outcome.exit_code == 3
    assert json.loads(outcome.stdout.splitlines()[-1])["refusal"]["code"] == "FILE_EXISTS"
    assert out.is_dir() or out.read_text() == "mine"


def test_sites_that_gave_nothing_are_not_counted_as_having_trained(tmp_path: Path):
    """Must: say how many of how many, and with which code the others stayed out, on page, card and comparison."""
    folder = write_run(tmp_path / "run", rounds=6)
    edit_rounds(folder, lambda rows: [row["sites"].remove("clinic-d") for row in rows if "clinic-d" in row["sites"]])
    edit(folder, lambda facts: facts.update(refusals=[{"site": "clinic-d", "code": "POLICY_PRIVACY"}]))
    build(folder)
    page, card = read((folder / "report.html").read_text()), (folder / "card.md").read_text()
    words = " ".join(" ".join(page.text).split())
    assert "3 of 4 sites trained one" in words
    assert re.search(r"clinic-d contributed to no round: [A-Z_, ]*POLICY_PRIVACY", words)
    assert "3 of 4 sites" in card
    assert re.search(r"clinic-d \(Hospital D\): 0 rounds \([A-Z_, ]*POLICY_PRIVACY", card)
    rows = json.loads((folder / "audit.json").read_text())["participation"]
    (idle,) = [row for row in rows if not row["rounds"]]
    assert idle["site"] == "clinic-d"
    assert "POLICY_PRIVACY" in idle["codes"]


def test_a_ledger_that_could_not_be_collected_is_explained(tmp_path: Path):
    """Must: name site, code and remedy on page and card. Must not: pass the audit."""
    folder = write_run(tmp_path / "run", rounds=6)
    (folder / "ledgers" / "clinic-b.jsonl").unlink()
    edit(folder, lambda facts: facts.update(ledgers_missing=[{"site": "clinic-b", "code": "SITE_UNREACHABLE"}]))
    build(folder)
    for text in ((folder / "report.html").read_text(), (folder / "card.md").read_text()):
        assert "No ledger of clinic-b that verifies was to be had when the run ended (SITE_UNREACHABLE)" in text
        assert "hushfed server resume" in text
    found = json.loads((folder / "audit.json").read_text())["privacy"]
    assert found["verdict"] == "FAIL"
    assert any("SITE_UNREACHABLE" in one["detail"] for one in found["findings"])

"""The page holds what one run cost against what its job promised, and labels what all runs in the ledgers cost."""

from __future__ import annotations

import json
import re
from pathlib import Path

from simulations.report.page import build
from tests.simulations.recorded import write_run


def test_page_and_card_hold_this_run_and_not_earlier_ones_against_its_promise(tmp_path: Path):
    """Must: label both figures. Must not: draw the promise beside figures of all runs, or a bar as exceeded."""
    folder = write_run(tmp_path / "later", rounds=6, earlier=30)
    page = build(folder).read_text()
    first = build(write_run(tmp_path / "first", rounds=6)).read_text()
    assert "promised by the job for this run" in first
    assert "promised by the job for this run" not in page
    assert "is not drawn" in page
    assert 'class="over"' not in page
    privacy = json.loads((folder / "audit.json").read_text())["privacy"]
    tiles = page[page.index('<div class="figures">') : page.index('<section id="privacy">')]
    assert f'<b class="figure-value"><data value="{privacy["this_run"]}">' in tiles
    assert 'of this run, of the promised <data value="3.0">3.00</data>' in tiles
    assert f'All runs in the ledgers: <data value="{privacy["epsilon"]}">' in tiles
    card = " ".join((folder / "card.md").read_text().split())
    assert re.search(r"This run cost no record more than ε = 2\.\d+, of the promised 3\.00; all runs in the led", card)


def test_a_row_of_a_site_has_the_width_of_the_page_and_its_name_one_line(tmp_path: Path):
    page = build(write_run(tmp_path / "run", rounds=6)).read_text()
    assert re.search(r'<div class="card wide">\s*<table class="stack"><caption>Sites', page)
    assert '<td class="whole" data-label="Site">clinic-a</td>' in page

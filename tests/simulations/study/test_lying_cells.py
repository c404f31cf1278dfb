"""Tables of studies in which sites lie: what they cost, and how often they got what they wanted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from simulations.study.cells import Cell
from simulations.study.comparison import compare
from simulations.study.results import Result
from simulations.study.words import table_text
from tests.simulations.study.test_table import RATES, Play, fine, table


def lying(rate: float | None) -> Play:
    """Cells of which those with liars are a little worse; rate: how often their backdoor works."""

    def play(cell: Cell, number: int) -> Result:
        made = fine(cell, number)
        if cell.scenario.world.adversaries is None:
            return made
        attack = {"attack_difference": -0.03, "attack_success": rate, "attack_lift": rate and rate - 0.01}
        return replace(made, metrics={**made.metrics, **attack})

    return play


@pytest.mark.parametrize("rate", [None, 0.43])
def test_a_row_with_liars_says_what_they_cost_and_how_often_they_got_their_class(
    rate: float | None, tmp_path: Path
) -> None:
    """Must: show a dash where nobody lies, or wants nothing. Must not: show such columns in a study without liars."""
    flip = {"sites": 1, "from_round": 1, "records": {"attack": "label-flip"}}
    arms = {"attack": {"none": {}, "flip": {"world.adversaries": flip}}}
    made = table(tmp_path / "s", lying(rate), grid={RATES: [0.25]}, arms=arms)
    head, _, honest, attacked, *rest = table_text(made).splitlines()
    assert "by the attack" in head
    assert ("attack success" in head) is ("its lift" in head) is (rate is not None)
    assert "-3.0 ±0.0 (5)" in attacked
    assert "-3.0" not in honest
    assert any(line.startswith("by the attack: accuracy less that of the same cells") for line in rest)
    if rate is not None:
        assert "43.0 ±0.0 (5)" in attacked
        assert "+42.0 ±0.0 (5)" in attacked
    assert "by the attack" not in table_text(table(tmp_path / "t"))
    assert compare(made, metric="attack_success").rows[0].found is None, "nobody lies in the baseline"

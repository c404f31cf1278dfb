"""A figure of private steps: for each model one line an engine, its time as a multiple of a plain step's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from simulations.bench.chart import LEFT, RIGHT, STEP, STYLE, WIDTH, text
from simulations.bench.privacy import PrivacyRow
from simulations.bench.privacy_models import SUBJECTS
from simulations.bench.privacy_steps import OWN


def draw(rows: Sequence[PrivacyRow]) -> str:
    """An SVG document; lines span the quartiles, the ratio of memory stands at the end of a line."""
    most = math.ceil(max([2.0, *(row.ratio_high for row in rows)]))
    parts = [text(16, 24, "CPU time of a private step, as a multiple of a plain one", "head")]
    parts.append(text(WIDTH - 12, 24, "memory", "soft", "end"))
    top = 46.0
    for model in dict.fromkeys(row.model for row in rows):
        mine = [row for row in rows if row.model == model and row.engine != "sgd"]
        parts.append(text(16, top + 14, SUBJECTS[model].title, "head"))
        top += 26
        floor = top + STEP * len(mine)
        parts += _grid(most, top, floor)
        for place, row in enumerate(sorted(mine, key=lambda row: row.ratio)):
            parts += _line(row, top + STEP * (place + 0.5), most)
        top = floor + 44
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {top:g}" width="{WIDTH:g}" height="{top:g}"'
    return f'{head} role="img" aria-label="CPU time of private steps"><style>{STYLE}</style>{"".join(parts)}</svg>\n'


def _across(ratio: float, most: int) -> float:
    return LEFT + max(0.0, ratio - 1.0) / (most - 1) * (WIDTH - LEFT - RIGHT)


def _grid(most: int, top: float, floor: float) -> list[str]:
    parts = []
    for half in range(2, 2 * most + 1):
        x = _across(half / 2, most)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{floor:g}"/>')
        parts.append(text(x, floor + 16, f"{half / 2:g} ×", "soft", "middle"))
    return parts


def _line(row: PrivacyRow, y: float, most: int) -> list[str]:
    style = "hushfed" if row.engine in OWN else "flower"
    low, x, high = (_across(ratio, most) for ratio in (row.ratio_low, row.ratio, row.ratio_high))
    hover = f"<title>{escape(row.engine)}: {row.ratio:.2f} times, {1e3 * row.cpu_seconds:.1f} ms</title>"
    parts = [
        text(LEFT - 14, y + 4, row.engine, "soft", "end"),
        f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="{y:g}" y2="{y:g}"/>',
        f'<circle class="{style}" cx="{x:.1f}" cy="{y:g}" r="5">{hover}</circle>',
        text(x + 10, y + 4, f"{row.ratio:.2f}", ""),
    ]
    if row.memory_ratio is not None:
        parts.append(text(WIDTH - 12, y + 4, f"{row.memory_ratio:.1f} ×", "soft", "end"))
    return parts

"""A figure of simulated rounds: for each work one line an engine or peer, its CPU time in those of a bare loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from simulations.bench.chart import LEFT, RIGHT, STEP, STYLE, WIDTH, text
from simulations.bench.simulate_rows import BARE, SimulationRow
from simulations.bench.simulate_scaling import ScalingRow

HIGH = 190.0  # of a curve


def draw(rows: Sequence[SimulationRow], scaling: Sequence[ScalingRow] = ()) -> str:
    """An SVG document; peers in another colour, memory at the end of a line, curves of growth below."""
    parts = [text(16, 24, "CPU time of a simulated round, as a multiple of a bare loop's", "head")]
    parts.append(text(WIDTH - 12, 24, "memory", "soft", "end"))
    low, high = _ends([row.ratio_floor for row in rows])
    top = 46.0
    for work in dict.fromkeys(row.work for row in rows):
        mine = sorted((row for row in rows if row.work == work), key=lambda row: row.ratio_floor)
        parts.append(text(16, top + 14, work, "head"))
        top += 26
        floor = top + STEP * len(mine)
        parts += _grid(low, high, top, floor)
        for place, row in enumerate(mine):
            parts += _line(row, top + STEP * (place + 0.5), low, high)
        top = floor + 44
    for curve, title in (("sites", "Sites of a round"), ("parameters", "Parameters of the model")):
        if mine_too := [row for row in scaling if row.curve == curve]:
            parts += _curve(mine_too, title, top)
            top += HIGH + 78
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {top:g}" width="{WIDTH:g}" height="{top:g}"'
    return f'{head} role="img" aria-label="CPU time of simulated rounds"><style>{STYLE}</style>{"".join(parts)}</svg>\n'


def _ends(ratios: Sequence[float]) -> tuple[int, int]:
    """Powers of two around all ratios and 1."""
    logs = [math.log2(max(each, 1e-3)) for each in [*ratios, 1.0]]
    return math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)


def _across(ratio: float, low: int, high: int) -> float:
    return LEFT + (math.log2(max(ratio, 1e-3)) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _grid(low: int, high: int, top: float, floor: float) -> list[str]:
    parts = []
    for power in range(low, high + 1):
        x = _across(2.0**power, low, high)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{floor:g}"/>')
        parts.append(text(x, floor + 16, f"{2.0**power:g} ×", "soft", "middle"))
    return parts


def _line(row: SimulationRow, y: float, low: int, high: int) -> list[str]:
    x = _across(row.ratio_floor, low, high)
    style = "computed flower" if row.engine == BARE else "flower" if " " in row.engine else "hushfed"
    hover = f"<title>{escape(row.engine)}: {1e3 * row.cpu_seconds_per_round:.0f} ms of CPU a round</title>"
    parts = [
        text(LEFT - 14, y + 4, row.engine, "soft", "end"),
        f'<circle class="{style}" cx="{x:.1f}" cy="{y:g}" r="5">{hover}</circle>',
        text(x + 10, y + 4, f"{row.ratio_floor:.2f}", ""),
    ]
    if row.peak_mb is not None:
        parts.append(text(WIDTH - 12, y + 4, f"{row.peak_mb:.0f} MB", "soft", "end"))
    return parts


def _curve(rows: Sequence[ScalingRow], title: str, top: float) -> list[str]:
    """CPU time a site over what grows, both logarithmic."""
    grown = [float(getattr(row, row.curve)) for row in rows]
    costs = [row.cpu_microseconds_per_site for row in rows]
    (left, right), (least, most) = _tens(grown), _tens(costs)
    span = WIDTH - LEFT - RIGHT

    def x_of(value: float) -> float:
        return LEFT + (math.log10(value) - left) / (right - left) * span

    def y_of(value: float) -> float:
        return top + 30 + HIGH - (math.log10(value) - least) / (most - least) * HIGH

    parts = [text(16, top + 14, f"CPU time a site, by {title.lower()}", "head")]
    for power in range(left, right + 1):
        x = x_of(10.0**power)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top + 30:g}" y2="{top + 30 + HIGH:g}"/>')
        parts.append(text(x, top + HIGH + 48, f"{10**power:,}".replace(",", " "), "soft", "middle"))
    for power in range(least, most + 1):
        y = y_of(10.0**power)
        parts.append(f'<line class="grid" x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(text(LEFT - 14, y + 4, f"{10.0**power:g} µs", "soft", "end"))
    path = " ".join(f"{x_of(at):.1f},{y_of(cost):.1f}" for at, cost in zip(grown, costs, strict=True))
    parts.append(f'<polyline points="{path}" fill="none" style="stroke:#1d6a72;stroke-width:2"/>')
    for row, at, cost in zip(rows, grown, costs, strict=True):
        hover = f"<title>{escape(row.engine)}: {cost:.0f} µs a site, {row.ratio_floor:.2f} times bare</title>"
        parts.append(f'<circle class="hushfed" cx="{x_of(at):.1f}" cy="{y_of(cost):.1f}" r="5">{hover}</circle>')
        parts.append(text(x_of(at), y_of(cost) - 10, f"{row.ratio_floor:.2f} ×", "", "middle"))
    return parts


def _tens(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten around all values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)

"""A figure of measured accuracies: for each study its arrangements, every seed a dot, beside what others report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from simulations.bench.accuracy.measure import Row

WIDTH, LEFT, RIGHT, STEP, TOP = 760.0, 236.0, 78.0, 30.0, 72.0
_STYLE = """
svg { background: #fffefb; font: 12px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
text { fill: #1c2731; } .soft { fill: #5b6771; } .head { font-size: 14px; font-weight: 650; }
.grid { stroke: #e2ded4; } .aim { stroke: #9b968a; stroke-width: 2; }
.pooled { fill: #1d6a72; } .sites { fill: #9a5b2b; } circle { fill-opacity: 0.45; }
rect.mean { fill-opacity: 1; } path { fill: none; stroke: #1c2731; stroke-width: 1.6; }
"""


def draw(rows: Sequence[Row]) -> str:
    """An SVG document: dots for seeds, a bar for their mean, a diamond for the published figure, a tick for the aim."""
    known = [value for row in rows for value in (*row.accuracies, row.aim, row.published or row.aim)]
    low = math.floor(min(known) * 50) / 50
    floor = TOP + STEP * len(rows)
    parts = [*_legend(), *_grid(low, floor)]
    for place, row in enumerate(rows):
        parts += _line(row, TOP + STEP * (place + 0.5), low)
    height = floor + 34
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {height:g}" width="{WIDTH:g}"'
    body = f"<style>{_STYLE}</style>{''.join(parts)}"
    return f'{head} height="{height:g}" role="img" aria-label="Accuracy of private training">{body}</svg>\n'


def _across(value: float, low: float) -> float:
    return LEFT + (value - low) / (1.0 - low) * (WIDTH - LEFT - RIGHT)


def _legend() -> list[str]:
    marks = (
        ('<circle class="pooled" cx="{x:g}" cy="40" r="5"/>', "records in one place"),
        ('<circle class="sites" cx="{x:g}" cy="40" r="5"/>', "sites, noise in the sum"),
        (_diamond("{x:g}", 40), "published"),
        ('<line class="aim" x1="{x:g}" x2="{x:g}" y1="33" y2="47"/>', "aim"),
    )
    parts, x = [_text(16, 20, "Accuracy on test records under record-level privacy, delta 1e-5", "head")], 22.0
    for mark, words in marks:
        parts += [mark.replace("{x:g}", f"{x:g}"), _text(x + 10, 44, words, "soft")]
        x += 40 + 6.4 * len(words)
    return parts


def _grid(low: float, floor: float) -> list[str]:
    parts = []
    for mark in range(round(low * 50), 51):
        x = _across(mark / 50, low)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8:g}" y2="{floor:g}"/>')
        parts.append(_text(x, floor + 18, f"{2 * mark} %", "soft", "middle"))
    return parts


def _line(row: Row, y: float, low: float) -> list[str]:
    style = "pooled" if row.sites == 1 else "sites"
    place = "one place" if row.sites == 1 else f"{row.sites} sites"
    parts = [_text(LEFT - 14, y + 4, f"{row.study}, {place}", "soft", "end")]
    aim = _across(row.aim, low)
    parts.append(f'<line class="aim" x1="{aim:.1f}" x2="{aim:.1f}" y1="{y - 8:g}" y2="{y + 8:g}"/>')
    parts += [f'<circle class="{style}" cx="{_across(v, low):.1f}" cy="{y:g}" r="5"/>' for v in row.accuracies]
    mean = _across(row.accuracy, low)
    parts.append(f'<rect class="mean {style}" x="{mean - 1.5:.1f}" y="{y - 9:g}" width="3" height="18"/>')
    if row.published is not None:
        shown = _diamond(f"{_across(row.published, low):.1f}", y)
        parts.append(f"<g><title>{escape(row.source)}: {row.published:.1%}</title>{shown}</g>")
    parts.append(_text(WIDTH - 12, y + 4, f"{100 * row.accuracy:.2f} %", "", "end"))
    return parts


def _diamond(x: str, y: float) -> str:
    return f'<path transform="translate({x} {y:g})" d="M0-6L6 0L0 6L-6 0Z"/>'


def _text(x: float, y: float, words: str, style: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

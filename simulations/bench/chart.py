"""A figure of measured rows: for each role and case, one dot a peer on a logarithmic axis, with their ratio."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from simulations.bench.rows import Row

WIDTH, LEFT, RIGHT, STEP = 760.0, 236.0, 84.0, 26.0
STYLE = """
svg { background: #fffefb; font: 12px system-ui, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
text { fill: #1c2731; } .soft { fill: #5b6771; } .head { font-size: 14px; font-weight: 650; }
.grid { stroke: #e2ded4; } .span { stroke: #cfc9bb; stroke-width: 3; }
.hushfed { fill: #1d6a72; stroke: #1d6a72; } .flower { fill: #9a5b2b; stroke: #9a5b2b; }
circle { stroke-width: 2; } .computed { fill: #fffefb; }
"""
_TITLES = {
    "site": "One site: encode, mask, sign",
    "unmasking": "One unmasking site: check the set, sum its masks",
    "server": "The server: read and add all reports, open the sum",
}
Key = tuple[int, int, float]


def draw(rows: Sequence[Row]) -> str:
    """An SVG document; hollow dots are computed rows."""
    roles = [role for role in _TITLES if any(row.role == role for row in rows)]
    low, high = _ends(row.cpu_seconds for row in rows)
    parts, top = _legend(rows), 46.0
    for role in roles:
        own = [row for row in rows if row.role == role]
        keys = sorted({_key(row) for row in own})
        parts.append(text(16, top + 14, _TITLES[role], "head"))
        top += 26
        floor = top + STEP * len(keys)
        parts += _grid(low, high, top, floor)
        for place, key in enumerate(keys):
            parts += _line([row for row in own if _key(row) == key], top + STEP * (place + 0.5), low, high)
        top = floor + 44
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:g} {top:g}" width="{WIDTH:g}" height="{top:g}"'
    return f'{head} role="img" aria-label="CPU seconds by role"><style>{STYLE}</style>{"".join(parts)}</svg>\n'


def _key(row: Row) -> Key:
    return row.d, row.n, row.dropout


def _ends(seconds: Iterable[float]) -> tuple[int, int]:
    """Powers of ten around all values."""
    logs = [math.log10(max(each, 1e-6)) for each in seconds]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    return low, max(high, low + 1)


def _across(seconds: float, low: int, high: int) -> float:
    return LEFT + (math.log10(max(seconds, 1e-6)) - low) / (high - low) * (WIDTH - LEFT - RIGHT)


def _legend(rows: Sequence[Row]) -> list[str]:
    parts, x = [text(16, 24, "CPU time of one round of secure aggregation", "head")], LEFT + 160
    for peer in sorted({row.peer for row in rows}, reverse=True):
        parts += [f'<circle class="{escape(peer)}" cx="{x:g}" cy="20" r="4"/>', text(x + 9, 24, peer, "")]
        x += 84
    if any(row.computed for row in rows):
        parts += [f'<circle class="computed flower" style="fill:#fffefb" cx="{x:g}" cy="20" r="4"/>']
        parts += [text(x + 9, 24, "computed from parts", "")]
    return parts


def _grid(low: int, high: int, top: float, floor: float) -> list[str]:
    parts = []
    for power in range(low, high + 1):
        x = _across(10.0**power, low, high)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top:g}" y2="{floor:g}"/>')
        parts.append(text(x, floor + 16, _seconds(10.0**power), "soft", "middle"))
    return parts


def _line(rows: Sequence[Row], y: float, low: int, high: int) -> list[str]:
    """One case: its name, its dots, and how many times the slower one takes."""
    d, n, dropout = _key(rows[0])
    name = f"d = {d:,}, n = {n}".replace(",", " ", 1) if d < 10**6 else f"d = {d // 10**6} million, n = {n}"
    parts = [text(LEFT - 14, y + 4, f"{name}, {100 * dropout:.0f} % lost", "soft", "end")]
    ends = sorted(_across(row.cpu_seconds, low, high) for row in rows)
    parts.append(f'<line class="span" x1="{ends[0]:.1f}" x2="{ends[-1]:.1f}" y1="{y:g}" y2="{y:g}"/>')
    for row in rows:
        x, fill = _across(row.cpu_seconds, low, high), ' style="fill:#fffefb"' if row.computed else ""
        hover = f"<title>{escape(row.peer)}: {_seconds(row.cpu_seconds)}</title>"
        parts.append(f'<circle class="{escape(row.peer)}"{fill} cx="{x:.1f}" cy="{y:g}" r="5">{hover}</circle>')
    if len(rows) == 2:
        slow, fast = (each(row.cpu_seconds for row in rows) for each in (max, min))
        parts.append(text(WIDTH - 12, y + 4, f"{slow / fast:.0f} ×", "", "end"))
    else:
        parts.append(text(WIDTH - 12, y + 4, _seconds(rows[0].cpu_seconds), "soft", "end"))
    return parts


def _seconds(seconds: float) -> str:
    """10 ms, 1 s, 1000 s."""
    if seconds >= 1:
        return f"{seconds:.3g} s" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"


def text(x: float, y: float, words: str, style: str, anchor: str = "start") -> str:
    """One line of words."""
    return f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'

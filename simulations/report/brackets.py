"""The figure of a promise and what an attack proves: the claimed epsilon above a bar, the lower bound below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from simulations.report.figures import WIDTH, Axis, Scale, svg, tag, text, ticks

_STEP, _HEAD, _FOOT = 86.0, 6.0, 26.0


@dataclass(frozen=True, kw_only=True)
class Bracket:
    """One attack. `claimed` None: nothing is claimed; `most`: what it could have proved at most, if that is known."""

    name: str
    shown: float
    claimed: float | None
    most: float | None
    style: str


def brackets(title: str, rows: Sequence[Bracket]) -> Markup:
    """A bar from 0 to what the attack proves, and a line where the claim is."""
    reach = max([1e-3, *(value for row in rows for value in (row.shown, row.claimed, row.most) if value is not None)])
    axis = Axis(low=0.0, high=1.08 * reach)
    across = Scale(axis, 10, WIDTH - 18)
    floor = _HEAD + _STEP * len(rows)
    parts: list[Markup] = []
    for tick in ticks(axis):
        x = across(tick)
        parts.append(tag("line", "grid", x1=x, x2=x, y1=_HEAD, y2=floor))
        parts.append(text(x, floor + 16, axis.text(tick), "tick", "middle"))
    for place, row in enumerate(rows):
        top = _HEAD + place * _STEP
        parts.append(text(10, top + 14, row.name, "name", "start"))
        parts += _row(row, top, across)
    return svg(title, floor + _FOOT, parts)


def _row(row: Bracket, top: float, across: Scale) -> list[Markup]:
    y, parts = top + 46, []
    shown, start = across(row.shown), across(0.0)
    if row.most is not None:
        hover = f"{row.name}: without any noise it would have proved {row.most:.2f}"
        parts.append(
            tag("rect", "reach", hover, x=start, y=y, width=max(1.0, across(row.most) - start), height=8, rx=4)
        )
    hover = f"{row.name}: proves at least {row.shown:.2f}"
    parts.append(tag("rect", f"proved {row.style}", hover, x=start, y=y, width=max(4.0, shown - start), height=8, rx=4))
    parts.append(text(start if shown < 120 else shown, y + 24, f"at least {row.shown:.2f}", "label", _side(shown)))
    if row.claimed is not None:
        x = across(row.claimed)
        parts.append(tag("line", "claim", f"claimed: {row.claimed:.2f}", x1=x, x2=x, y1=y - 8, y2=y + 12))
        parts.append(text(x, y - 12, f"claimed {row.claimed:.2f}", "label", "end" if x > WIDTH / 2 else "start"))
    return parts


def _bar(style: str, hover: str, start: float, end: float, y: float) -> Markup:
    return tag("rect", style, hover, x=start, y=y, width=max(4.0, end - start), height=8, rx=4)


def _side(x: float) -> str:
    return "start" if x < 120 else "end"

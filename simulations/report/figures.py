"""Figures as small hand-written SVG: curves, whiskers and strips, coloured by the page, explained on hover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from simulations.report.numbers import THIN

WIDTH = 440.0  # user units; the page scales a figure to its column
_TALL = {"present": 14.0, "refused": 8.0, "absent": 2.0}
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 14.0, 14.0, 26.0


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: (x, y) points; y None breaks it. `style` is a class of the style sheet."""

    name: str
    points: Sequence[tuple[float, float | None]]
    style: str


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal line at a value that the curves are compared with; `label` is written on it."""

    name: str
    value: float
    style: str
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Whisker:
    """A point with its interval on a horizontal axis; a value of None draws only the words of `note`."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    style: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A value axis from `low` to `high` with a label; percent writes 0.5 as 50 %."""

    low: float
    high: float
    label: str = ""
    percent: bool = False
    power: bool = False  # values are logarithms to base 10, labels what they stand for

    def text(self, value: float) -> str:
        """A tick's label."""
        value = 10**value if self.power else value
        return f"{round(100 * value, 6):g} %" if self.percent else f"{value:g}"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves and levels over rounds."""

    title: str
    x: Axis
    y: Axis
    curves: Sequence[Curve]
    levels: Sequence[Level] = field(default_factory=tuple)
    height: float = 236.0


def curves(chart: Chart) -> Markup:
    """A line chart; names show on hover."""
    floor = chart.height - _BOTTOM
    across = Scale(chart.x, _LEFT, WIDTH - _RIGHT)
    up = Scale(chart.y, floor, _TOP)
    parts = [_grid_line(up(tick), chart.y.text(tick)) for tick in ticks(chart.y)]
    bottom = floor + 16
    parts += [text(across(tick), bottom, chart.x.text(tick), "tick", "middle") for tick in ticks(chart.x, whole=True)]
    parts.append(text(_LEFT - 6, bottom, chart.x.label, "tick", "end"))
    shown = [(level, up(level.value)) for level in chart.levels if chart.y.low <= level.value <= chart.y.high]
    parts += [_level(level, y) for level, y in shown]
    parts += [_curve(curve, across, up) for curve in chart.curves]
    parts += [text(WIDTH - _RIGHT - 2, y - 4, one.label, "label", "end") for one, y in shown if one.label]
    return svg(chart.title, chart.height, parts)


def whiskers(title: str, rows: Sequence[Whisker], axis: Axis, zone: tuple[float, float] | None = None) -> Markup:
    """A forest plot: one row a whisker, its name above it; `zone` shades the accepted values."""
    step, head = 44.0, 8.0
    height = head + step * len(rows) + _BOTTOM
    across = Scale(axis, 10, WIDTH - 18)
    floor = height - _BOTTOM
    parts: list[Markup] = []
    if zone is not None:
        left, right = across(max(zone[0], axis.low)), across(min(zone[1], axis.high))
        parts.append(tag("rect", "zone", x=left, y=head, width=right - left, height=floor - head))
        parts.append(tag("line", "edge", x1=right, x2=right, y1=head, y2=floor))
    for tick in ticks(axis):
        x = across(tick)
        parts.append(tag("line", "grid", x1=x, x2=x, y1=head, y2=floor))
        parts.append(text(x, floor + 16, axis.text(tick), "tick", "middle"))
    for place, row in enumerate(rows):
        parts.append(_whisker(row, head + place * step, across))
    return svg(title, height, parts)


def strip(title: str, sites: Sequence[str], rounds: Sequence[int], marks: Sequence[Sequence[str]]) -> Markup:
    """One row a site, one cell a round. marks: class of each cell, [site][round]; the class is also its word."""
    step, head = 36.0, 4.0
    height = head + step * len(sites) + 22
    width = (WIDTH - 4) / max(1, len(rounds))
    gap = min(1.5, width * 0.15)
    parts: list[Markup] = []
    for i, site in enumerate(sites):
        top = head + i * step
        parts.append(text(2, top + 11, site, "name", "start"))
        for j, mark in enumerate(marks[i]):
            hover = f"{site}, round {rounds[j]}: {mark}"
            x = 2 + j * width
            tall = _TALL[mark]  # told apart by more than their colour
            y = top + 16 + 14 - tall
            parts.append(tag("rect", f"cell {mark}", hover, x=x, y=y, width=width - gap, height=tall, rx=1.5))
    if rounds:
        parts.append(text(2, height - 5, f"round {rounds[0]}", "tick", "start"))
        parts.append(text(WIDTH - 2, height - 5, f"round {rounds[-1]}", "tick", "end"))
    return svg(title, height, parts)


def bar(title: str, value: float, limit: float) -> Markup:
    """How much of a limit is used up: a bar of full width for the limit."""
    share = min(1.0, max(0.0, value / limit)) if limit > 0 else 1.0
    style = "over" if value > limit else "used"
    parts = [
        tag("rect", "rail", x=0, y=0, width=WIDTH, height=12, rx=6),
        tag("rect", style, title, x=0, y=0, width=max(6.0, WIDTH * share), height=12, rx=6),
    ]
    return svg(title, 12, parts)


def bars(title: str, rows: Sequence[tuple[str, int]]) -> Markup:
    """One bar a row, its name above it and its number at its end; the longest is as wide as the figure allows."""
    step, head, most = 36.0, 4.0, max((value for _, value in rows), default=0) or 1
    parts: list[Markup] = []
    for place, (name, value) in enumerate(rows):
        top, width = head + place * step, max(2.0, (WIDTH - 84) * value / most)
        shown = f"{value:,}".replace(",", THIN)
        parts.append(text(2, top + 11, name, "name", "start"))
        parts.append(tag("rect", "used", f"{name}: {shown}", x=2, y=top + 17, width=width, height=10, rx=2))
        parts.append(text(width + 8, top + 26, shown, "tick", "start"))
    return svg(title, head + step * len(rows), parts)


def ticks(axis: Axis, *, whole: bool = False, wanted: int = 5) -> list[float]:
    """About `wanted` round values from low to high, in steps of 1, 2 or 5 times a power of ten."""
    span = axis.high - axis.low
    if not span > 0:
        return [axis.low]
    raw = span / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    step = max(1.0, step) if whole else step
    first = math.ceil(axis.low / step - 1e-9)
    last = math.floor(axis.high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def around(values: Sequence[float], *, low: float | None = None, high: float | None = None) -> tuple[float, float]:
    """Ends of an axis that shows all `values` with some air; fixed ends win."""
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    bottom, top = min(finite), max(finite)
    air = 0.08 * (top - bottom) or 0.5
    return (bottom - air if low is None else low), (top + air if high is None else high)


@dataclass(frozen=True)
class Scale:
    """A value axis laid onto user units; values beyond its ends lie on them."""

    axis: Axis
    start: float
    end: float

    def __call__(self, value: float) -> float:
        span = self.axis.high - self.axis.low or 1.0
        return self.start + (min(max(value, self.axis.low), self.axis.high) - self.axis.low) / span * (
            self.end - self.start
        )


def _curve(curve: Curve, across: Scale, up: Scale) -> Markup:
    """The line of a curve, broken where a value is missing; a lone point becomes a dot."""
    parts: list[Markup] = []
    for run in _runs(curve.points):
        path = " ".join(f"{'L' if i else 'M'}{_n(across(x))} {_n(up(y))}" for i, (x, y) in enumerate(run))
        if len(run) == 1:
            parts.append(tag("circle", f"dot {curve.style}", curve.name, cx=across(run[0][0]), cy=up(run[0][1]), r=3))
        else:
            parts.append(tag("path", f"line {curve.style}", curve.name, d=path))
    return Markup("").join(parts)


def _runs(points: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if y is None or not math.isfinite(y):
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _level(level: Level, y: float) -> Markup:
    return tag("line", f"level {level.style}", level.name, x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y)


def _whisker(row: Whisker, top: float, across: Scale) -> Markup:
    parts = [text(10, top + 16, row.name, "name", "start")]
    y = top + 29
    if row.value is None or row.low is None or row.high is None:
        return parts[0] + text(10, y + 4, row.note, "tick", "start")
    left, right, x = across(row.low), across(row.high), across(row.value)
    hover = f"{row.name}: {row.note}"
    parts.append(
        tag("rect", f"range {row.style}", hover, x=left, y=y - 3, width=max(1.0, right - left), height=6, rx=3)
    )
    parts.append(tag("circle", f"point {row.style}", hover, cx=x, cy=y, r=5))
    return Markup("").join(parts)


def _grid_line(y: float, label: str) -> Markup:
    line = tag("line", "grid", x1=_LEFT, x2=WIDTH - _RIGHT, y1=y, y2=y)
    return line + text(_LEFT - 6, y + 4, label, "tick", "end")


def text(x: float, y: float, words: str, style: str, anchor: str) -> Markup:
    """Words at a place; `anchor` says which of their ends stands there."""
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
        style, _n(x), _n(y), anchor, words
    )


def tag(name: str, style: str, hover: str = "", **attributes: float | str) -> Markup:
    """One SVG element; `hover` becomes its <title>."""
    pairs = [(key, _n(value) if isinstance(value, float | int) else value) for key, value in attributes.items()]
    inside = "".join(f' {key}="{escape(value)}"' for key, value in pairs)
    title = Markup("<title>{}</title>").format(hover) if hover else Markup("")
    return Markup(f'<{name} class="{escape(style)}"{inside}>{title}</{name}>')  # noqa: S704 - every part is escaped


def svg(title: str, height: float, parts: Sequence[Markup]) -> Markup:
    """A whole figure of `WIDTH` times `height` user units."""
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_n(WIDTH), _n(height), title)
    return head + Markup("").join(parts) + Markup("</svg>")


def _n(value: float) -> str:
    """A coordinate: two digits are enough, and always the same text."""
    return f"{value:.2f}".rstrip("0").rstrip(".")

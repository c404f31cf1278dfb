"""Which figures a run's numbers make; how they are drawn is in figures.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from common.errors import Code
from simulations.audits.runs import Run
from simulations.report import figures
from simulations.report.figures import Axis, Chart, Curve, Level, Whisker
from simulations.report.words import only_run

TOLD_APART = 12  # most sites whose curves are named
SERIES = 6  # classes s0 … s5 of the style sheet

NAMES = {
    "demographic_parity_difference": "Demographic parity: selection rate",
    "equal_opportunity_difference": "Equal opportunity: true positive rate",
    "false_positive_rate_difference": "False positive rate",
    "equalized_odds_difference": "Equalized odds: the larger of both",
    "accuracy_difference": "Accuracy",
    "demographic_parity_ratio": "Selection rate, smallest to largest",
    "accuracy_ratio": "Accuracy, smallest to largest",
    "selection_rate": "Selection rate",
    "true_positive_rate": "True positive rate",
    "false_positive_rate": "False positive rate",
    "accuracy": "Accuracy",
}


def learning_key(run: Run, learning: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and colour of everything in the accuracy figure."""
    lines = [(curve.name, curve.style) for curve in _estimates(run) if any(y is not None for _, y in curve.points)]
    return lines + [(level.name, level.style) for level in _marks(learning)]


def drawings(run: Run, found: Mapping[str, Any]) -> dict[str, Markup | None]:
    """Every figure by name; None where the run holds nothing to draw."""
    return {
        "accuracy": _accuracy(run, found["learning"]),
        "loss": _loss(run),
        "epsilon": _epsilon(run, found["privacy"]),
        "attack": _attack(run),
        "gaps": _gaps(found["fairness"]),
        "participation": _participation(run),
        "often": None if run.listed else _often(found["attendance"]),
        "present": None if run.listed else _present(run),
        **{f"groups_{rate}": _groups(found["fairness"], rate) for rate in ("selection_rate", "accuracy")},
    }


def _accuracy(run: Run, learning: Mapping[str, Any]) -> Markup | None:
    """The model's accuracy by round between what pooled data and lonely sites reach."""
    lines, marks = _estimates(run), _marks(learning)
    known = [y for curve in lines for _, y in curve.points if y is not None]
    if not known:
        return None
    low, high = figures.around(known + [level.value for level in marks])
    axis = Axis(low=max(0.0, low), high=min(1.0, high), percent=True)
    return figures.curves(Chart(title="Accuracy by round", x=_rounds(run), y=axis, curves=lines, levels=marks))


def _estimates(run: Run) -> list[Curve]:
    return [
        Curve(name="private estimate", points=_series(run, "accuracy"), style="s0"),
        Curve(name="exact, by the simulation", points=_series(run, "exact_accuracy"), style="s1"),
    ]


def _marks(learning: Mapping[str, Any]) -> list[Level]:
    """What the model is compared with, where it is known."""
    named = (
        ("pooled_accuracy", "pooled data", "s2"),
        ("alone_accuracy", "a site alone, mean", "s3"),
        ("chance", "chance", "s4"),
    )
    return [
        Level(name=name, value=learning[key], style=style) for key, name, style in named if learning[key] is not None
    ]


def _loss(run: Run) -> Markup | None:
    points = _series(run, "loss")
    values = [y for _, y in points if y is not None]
    if not values:
        return None
    low, high = figures.around(values)
    curve = Curve(name="loss, private estimate of each round", points=points, style="s1")
    return figures.curves(Chart(title="Loss by round", x=_rounds(run), y=Axis(low=low, high=high), curves=[curve]))


def _attack(run: Run) -> Markup | None:
    """How often a backdoor worked after each round, beside the rate without any attack."""
    backdoor = (run.facts.get("adversaries") or {}).get("backdoor") or {}
    points = _series(run, "attack_success")
    if not any(y is not None for _, y in points):
        return None
    curve = Curve(name="triggered records that get the liars’ class", points=points, style="s1")
    base = backdoor.get("base")
    marks = [Level(name="without the attack", value=base["value"], style="s3", label="no attack")] if base else []
    axis = Axis(low=0.0, high=1.0, percent=True)
    return figures.curves(Chart(title="Backdoor by round", x=_rounds(run), y=axis, curves=[curve], levels=marks))


def _epsilon(run: Run, privacy: Mapping[str, Any]) -> Markup | None:
    """Epsilon spent after each round, one curve a site, below the job's promise if nothing else was ever charged."""
    limit = privacy["promised"] if only_run(privacy) else None
    spent = {site: _spent(run, site) for site in run.sites}
    values = [y for points in spent.values() for _, y in points if y is not None]
    if not values or privacy["epsilon"] is None:
        return None
    high = figures.around([*values, *([limit] if limit else [])], low=0.0)[1]
    styles = dict(site_key(run))
    lines = [Curve(name=site, points=points, style=styles.get(site, "s0")) for site, points in spent.items()]
    promise = "promised by the job for this run"
    marks = [Level(name=promise, value=limit, style="limit", label=promise)] if limit else []
    axis = Axis(low=0.0, high=high)
    return figures.curves(Chart(title="Epsilon by round and site", x=_rounds(run), y=axis, curves=lines, levels=marks))


def site_key(run: Run) -> list[tuple[str, str]]:
    """Name and style of each site's curve; so many sites that colours would repeat too often share one."""
    if len(run.sites) > TOLD_APART:
        return [(f"each of {len(run.sites)} sites", "s0")]
    return [(site, f"s{i % SERIES}") for i, site in enumerate(run.sites)]


def _gaps(fairness: Mapping[str, Any]) -> Markup | None:
    """Differences between groups as a forest plot; the zone is what the tolerance accepts."""
    metrics = {name: m for name, m in fairness["metrics"].items() if name.endswith("_difference")}
    if not any(metric["value"] is not None for metric in metrics.values()):
        return None
    rows = [
        Whisker(
            name=NAMES[name], value=m["value"], low=m["low"], high=m["high"], style=m["verdict"].lower(),
            note="undefined: too few records" if m["value"] is None else _range(m["value"], m["low"], m["high"]),
        )
        for name, m in metrics.items()
    ]  # fmt: skip
    tolerance = fairness["tolerance"]
    top = max([m["high"] for m in metrics.values() if m["high"] is not None] + [tolerance or 0.0])
    axis = Axis(low=0.0, high=min(1.0, math.ceil(10 * top + 1e-9) / 10), percent=True)
    zone = (0.0, tolerance) if tolerance is not None else None
    return figures.whiskers("Largest difference between two groups", rows, axis, zone)


def _groups(fairness: Mapping[str, Any], rate: str) -> Markup | None:
    """One rate of every group with its interval."""
    shown = [row for row in fairness["groups"] if row[rate] is not None]
    if not shown:
        return None
    ends = [(row, row["intervals"][rate]) for row in shown]
    rows = [
        Whisker(name=row["group"], value=row[rate], low=low, high=high, style="s0", note=_range(row[rate], low, high))
        for row, (low, high) in ends
    ]
    return figures.whiskers(f"{NAMES[rate]} by group", rows, Axis(low=0.0, high=1.0, percent=True))


def _participation(run: Run) -> Markup | None:
    """Who was in the sum of which round; None where sites are not told one by one."""
    if not run.rounds or not run.listed:
        return None
    rounds = [int(entry["round"]) for entry in run.rounds]
    marks = [[_mark(entry, site) for entry in run.rounds] for site in run.sites]
    return figures.strip("Participation by site and round", run.sites, rounds, marks)


def _often(attended: Mapping[str, Any]) -> Markup:
    """How often sites took part: a bar for each number of rounds. Those that never did are told in words."""
    rows = [row for row in attended["often"] if row["high"]]
    return figures.bars("Sites by rounds that they took part in", [(_times(row), row["sites"]) for row in rows])


def _times(row: Mapping[str, int]) -> str:
    """1 round, 2 rounds, 3 to 5 rounds."""
    low, high = row["low"], row["high"]
    return f"{low} to {high} rounds" if low < high else f"{low} round{'' if low == 1 else 's'}"


def _present(run: Run) -> Markup | None:
    """How many reports each sum holds."""
    points = [(float(entry["round"]), float(len(entry["sites"]))) for entry in run.rounds]
    if not points:
        return None
    high = figures.around([y for _, y in points], low=0.0)[1]
    curve = Curve(name="reports in the sum", points=points, style="s0")
    title = "Reports in the sum by round"
    return figures.curves(Chart(title=title, x=_rounds(run), y=Axis(low=0.0, high=high), curves=[curve]))


def _mark(entry: Mapping[str, Any], site: str) -> str:
    if site in entry.get("sites", ()):
        return "present"
    codes = {one["code"] for one in entry.get("refusals", ()) if one["site"] == site}
    return "refused" if codes - {Code.SITE_UNREACHABLE.value} else "absent"


def _spent(run: Run, site: str) -> list[tuple[float, float | None]]:
    return [(entry["round"], (entry.get("epsilon") or {}).get(site)) for entry in run.rounds]


def _series(run: Run, key: str) -> list[tuple[float, float | None]]:
    return [(entry["round"], entry.get(key)) for entry in run.rounds]


def _rounds(run: Run) -> Axis:
    numbers = [float(entry["round"]) for entry in run.rounds] or [0.0]
    return Axis(low=min(numbers), high=max(numbers), label="round")


def _range(value: float, low: float, high: float) -> str:
    return f"{100 * value:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"

"""Two runs side by side on one page: what each reached, and what each cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from common.errors import Code, Refusal
from simulations.audits.fairness import Tolerance
from simulations.audits.runs import Run, read_run
from simulations.report import figures
from simulations.report.drawings import NAMES
from simulations.report.figures import Axis, Chart, Curve
from simulations.report.findings import findings
from simulations.report.numbers import DASH, count, epsilon, number, percent, small
from simulations.report.page import environment, replace_file
from simulations.report.words import ACCURACIES


def compare(first: Path, second: Path, out: Path) -> Path:
    """Write the page that compares the runs in two directories; returns its path.

    Errors: Refusal as `read_run` says; FILE_MISSING if the folder of `out` is not there; FILE_EXISTS.
    """
    if out.exists() or out.is_symlink():
        raise Refusal(Code.FILE_EXISTS, f"{out} not written", "it is there already", "Name a new file with --out")
    runs = (read_run(first), read_run(second))
    if not out.parent.is_dir():
        raise Refusal(Code.FILE_MISSING, f"{out} not written", "its folder is not there", "Make the folder first")
    replace_file(out, comparison(runs))
    return out


def comparison(runs: tuple[Run, Run]) -> str:
    """The HTML; equal runs give equal bytes. Runs of one name are told apart by the beginning of their ids."""
    found = [findings(run, Tolerance(), ()) for run in runs]
    names = [str(run.facts["job"]["name"]) for run in runs]
    if names[0] == names[1]:
        names = [f"{name} · {run.facts['run'][:8]}" for name, run in zip(names, runs, strict=True)]
    parts = {
        "Learning": _learning(found),
        "Privacy": _privacy(found),
        "Largest difference between two groups": _fairness(found),
        "Cost": _cost(found),
    }
    shown = {title: rows for title, rows in parts.items() if rows}
    drawing = _curves(runs, names)
    return environment().get_template("comparison.html").render(names=names, parts=shown, drawing=drawing)


Rows = list[tuple[str, list[Markup]]]


def _learning(found: list[dict[str, Any]]) -> Rows:
    rows = [(title, [one["learning"][key] for one in found]) for key, title in ACCURACIES.items()]
    return [(title, [percent(value) for value in values]) for title, values in rows if values != [None, None]]


def _privacy(found: list[dict[str, Any]]) -> Rows:
    audits = [one["privacy"] for one in found]
    planned = ("ε, planned, of a deployment’s site in every round", [_planned(audit) for audit in audits])
    return [
        ("Verdict", [Markup.escape(audit["verdict"]) for audit in audits]),
        ("ε, largest over sites, this run", [_epsilon(audit, "this_run") for audit in audits]),
        ("ε, largest over sites, all runs", [_epsilon(audit, "epsilon") for audit in audits]),
        *([planned] if any(audit["planned"] for audit in audits) else []),
        ("of one", [Markup.escape(audit["unit"] or DASH) for audit in audits]),
        ("δ", [small(audit["delta"]) for audit in audits]),
        ("Mode", [Markup.escape(audit["mode"] or "—") for audit in audits]),
    ]


def _epsilon(audit: Mapping[str, Any], which: str) -> Markup:
    """None is stated of a run whose audit failed."""
    return Markup.escape(DASH) if audit["verdict"] != "PASS" else epsilon(audit[which])


def _planned(audit: Mapping[str, Any]) -> Markup:
    """Of a run whose sums were formed without masks."""
    known = audit["planned"] and audit["planned"]["epsilon"] is not None
    return epsilon(audit["planned"]["epsilon"]) if known else Markup.escape(DASH)


def _fairness(found: list[dict[str, Any]]) -> Rows:
    names = [name for name in NAMES if name.endswith("_difference")]
    metrics = [one["fairness"]["metrics"] for one in found]
    return [(NAMES[n], [_gap(m.get(n)) for m in metrics]) for n in names if any(n in m for m in metrics)]


def _cost(found: list[dict[str, Any]]) -> Rows:
    learning = [one["learning"] for one in found]
    sent = [[site["bytes"] for site in one["participation"] if site["bytes"] is not None] for one in found]
    return [
        ("Sites that trained", [count(one["attendance"]["trained"]) for one in found]),
        ("Rounds", [count(one["rounds"]) for one in learning]),
        ("Seconds a round", [number(one["seconds_per_round"], 2) for one in learning]),
        ("Bytes sent, largest site", [count(max(sizes, default=None)) for sizes in sent]),
    ]


def _gap(metric: Mapping[str, Any] | None) -> Markup:
    if metric is None or metric["value"] is None:
        return percent(None)
    ends = Markup(' <span class="range">{} – {}</span>').format(percent(metric["low"]), percent(metric["high"]))
    return percent(metric["value"]) + ends


def _curves(runs: tuple[Run, Run], names: list[str]) -> Markup | None:
    """Private accuracy estimates of both runs over their rounds."""
    series = [[(float(entry["round"]), entry.get("accuracy")) for entry in run.rounds] for run in runs]
    known = [(x, y) for points in series for x, y in points if y is not None]
    if not known:
        return None
    low, high = figures.around([y for _, y in known])
    axis = Axis(low=max(0.0, low), high=min(1.0, high), percent=True)
    across = Axis(low=min(x for x, _ in known), high=max(x for x, _ in known), label="round")
    curves = [
        Curve(name=name, points=points, style=f"s{i}")
        for i, (name, points) in enumerate(zip(names, series, strict=True))
    ]
    return figures.curves(Chart(title="Accuracy by round", x=across, y=axis, curves=curves))

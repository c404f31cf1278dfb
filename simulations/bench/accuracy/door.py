"""Measure what private training reaches, beside the figures that others have published."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, Any

import typer

from common import console
from common.errors import Code, Refusal
from simulations.bench.accuracy.journal import journal_in, settings_of
from simulations.bench.accuracy.material import Larder
from simulations.bench.accuracy.measure import Row, measure
from simulations.bench.accuracy.picture import draw
from simulations.bench.accuracy.studies import EMBEDDED, STUDIES, chosen

MEANING = (
    "Each epsilon is for one record (add or remove one) over all steps of one training, at delta 1e-5; in one place "
    "against whoever sees the model, at several sites against the server and one colluding site too. Choices made "
    "by looking at test records (which model, which settings) are not covered: they came from published work, or "
    "(digits, and the rate of mnist-scatternet-1) from trying a few."
)


@console.guarded
def accuracy(
    *,
    study: Annotated[
        list[str] | None, typer.Option(help=f"Repeatable; of {', '.join(STUDIES)} [those on embedded digits].")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="All studies; most need HUSHFED_DATA.")] = False,
    sites: Annotated[
        list[int] | None, typer.Option(min=1, help="1: one place; more: noise in secure sums; repeatable [1, 10].")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each row.")] = 1,
    out: Annotated[
        Path | None, typer.Option(help="New folder for rows.json and a figure, or that of an interrupted measurement.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """Accuracy of private training on public data: in one place, and at sites whose noise adds up in secure sums.

    Noise is never repeated, so another call gives other figures. One thread. With --out each row is on disk as soon as
    it is measured, and the same command goes on there after an interruption; one with other settings is refused.
    """
    if full and study:
        raise Refusal(Code.CONFIG_INVALID, "--full", "it names all studies itself", "Leave --study out")
    studies, places = chosen(STUDIES if full else study or EMBEDDED), sites or [1, 10]
    larder = Larder()
    with (
        journal_in(out, settings_of(studies, places, seeds)) as journal,
        console.progress("trainings", len(studies) * len(places) * seeds, json=json) as step,
    ):
        for each, place in itertools.product(studies, places):
            if journal.measured(each, place):
                step(seeds, note=f"{each.name}, {place} site{'s' * (place > 1)}: measured before")
            else:
                journal.add(measure(each, place, range(seeds), larder, step))
        rows = journal.rows
        result: dict[str, Any] = {"rows": [row.as_dict() for row in rows], "meaning": MEANING}
        if (figure := journal.close(result, draw(rows))) is not None:
            result["figure"] = str(figure)
    console.emit(result if json else {**result, "rows": [_readable(row) for row in rows]}, json=json)
    return console.Exit.DONE


def _readable(row: Row) -> dict[str, Any]:
    """The row as a person reads it; accuracies in percent."""
    return {
        "study": row.study,
        "sites": row.sites,
        "epsilon": row.epsilon,
        "accuracy": f"{100 * row.accuracy:.2f}",
        "deviation": "" if row.deviation is None else f"{100 * row.deviation:.2f}",
        "seeds": row.seeds,
        "published": "" if row.published is None else f"{100 * row.published:.1f}",
        "aim": f"{100 * row.aim:.1f}",
        "CPU": f"{row.cpu_seconds:.1f} s",
        "features": f"{row.feature_seconds:.1f} s",
    }

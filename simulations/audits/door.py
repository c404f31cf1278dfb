"""Audit a finished run, or any table of predictions: privacy and fairness, with a verdict as the exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from common import console
from common.errors import Code, Refusal
from simulations.audits import attack_door, fairness, privacy, tables
from simulations.audits.attack_door import EXITS
from simulations.audits.fairness import Tolerance
from simulations.audits.groups import Tally, from_release
from simulations.audits.intervals import Verdict
from simulations.audits.record import read_anchors
from simulations.audits.runs import read_run

app = typer.Typer(help="Audits whose verdict is the exit code: 0 PASS, 1 FAIL, 2 INCONCLUSIVE, 3 refused.")

Run = Annotated[Path, typer.Argument(help="Directory of a finished run.", show_default=False)]
MaybeRun = Annotated[Path | None, typer.Argument(help="Directory of a finished run.", show_default=False)]
Table = Annotated[Path | None, typer.Option("--table", help="CSV of predictions, instead of a run.")]
Label = Annotated[str | None, typer.Option("--label", help="With --table: column of the truth, 0 or 1.")]
Score = Annotated[str | None, typer.Option("--score", help="With --table: column of the model's score.")]
Threshold = Annotated[float | None, typer.Option("--threshold", help="With --table: positive from here on [0.5].")]
Sensitive = Annotated[list[str] | None, typer.Option("--sensitive", help="Attribute to compare by; repeatable.")]
Difference = Annotated[float | None, typer.Option("--tolerance", help="Largest accepted difference of a rate.")]
Ratio = Annotated[float | None, typer.Option("--ratio-tolerance", help="Smallest accepted ratio of a rate, as 0.8.")]
Manifest = Annotated[Path | None, typer.Option("--manifest", help="Signed manifest.json, got from elsewhere.")]
Governance = Annotated[str | None, typer.Option("--governance", help="Key that signed it: hex, or a file of it.")]
Heads = Annotated[Path | None, typer.Option("--heads", help="JSON of ledger heads by site, as keepers noted them.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object as the last line.")]

app.command("canaries")(attack_door.audit_canaries)
app.command("membership")(attack_door.audit_membership)
app.command("inversion")(attack_door.audit_inversion)


@app.command("privacy")
@console.guarded
def audit_privacy(
    run: Run,
    *,
    manifest: Manifest = None,
    governance: Governance = None,
    heads: Heads = None,
    json: Json = False,
) -> console.Exit:
    """Verify record, ledgers and model by their signatures, and recompute every epsilon from the plans alone."""
    found = privacy.audit(read_run(run), read_anchors(manifest, governance, heads))
    console.emit(found if json else _legible(found) | {"compare": _compare(found)}, json=json)
    return EXITS[Verdict(found["verdict"])]


def _compare(found: dict[str, Any]) -> str:
    """What the manifest's digest must be compared with, if it was not."""
    if "MANIFEST_MISMATCH" in found["problems"]:
        return "The manifest is another than the one you gave, so nothing in this run proves who signed it."
    if found["planned"]:
        return "There is no manifest to compare: the sums of this run were formed in the open, by nobody's keys."
    if found["anchors"]["manifest"]:
        return "The manifest is the one you gave, signed by the key of governance that you gave."
    return (
        "Compare the manifest's digest with the one that the federation's governance tells you (`hushfed job check` "
        "shows it), or give its file with --manifest and --governance: all signatures here are checked with its keys."
    )


@app.command("fairness")
@console.guarded
def audit_fairness(
    run: MaybeRun = None,
    *,
    table: Table = None,
    label: Label = None,
    score: Score = None,
    threshold: Threshold = None,
    sensitive: Sensitive = None,
    tolerance: Difference = None,
    ratio_tolerance: Ratio = None,
    json: Json = False,
) -> console.Exit:
    """Compare groups: rates, gaps with intervals that include privacy noise, and a verdict against your tolerance."""
    asked = Tolerance(difference=tolerance, ratio=ratio_tolerance)
    if table is None:
        if run is None or label or score or threshold is not None:
            raise _unclear("--label, --score and --threshold belong to --table, and without --table a RUN is needed")
        tally = _released(run, sensitive or [])
    else:
        if run is not None or not label or not score:
            raise _unclear("--table needs --label and --score, and no RUN beside it")
        cut = 0.5 if threshold is None else threshold
        columns = tables.Columns(label=label, score=score, sensitive=tuple(sensitive or ()), threshold=cut)
        tally = tables.read(table, columns)
    found = fairness.audit(tally, asked)
    console.emit(found if json else _readable(found), json=json)
    return EXITS[Verdict(found["verdict"])]


def _released(run: Path, sensitive: list[str]) -> Tally:
    """The counts by group that a run released. Errors: Refusal DATA_INVALID if it released none."""
    evaluation = read_run(run).facts.get("evaluation")
    if not evaluation:
        raise Refusal(
            Code.DATA_INVALID, f"{run} not audited", "it released no counts by group", "Ask for releases in the job"
        )
    tally = from_release(evaluation)
    return tally.by(sensitive) if sensitive else tally


def _legible(found: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to see of a privacy audit; what is the same at every site stands in the JSON.

    Every epsilon says what it is over: a promise binds one run, and stands beside what that run cost.
    """
    told = {"this_run": found["this_run"], "promised_for_it": found["promised"], "all_runs": found["epsilon"]}
    row = {"this_run": "run_epsilon", "all_runs": "recomputed", "reported": "epsilon"}
    sites = [
        {"site": site["site"], "epsilon": {to: site[name] for to, name in row.items()}, "entries": site["entries"]}
        for site in found["sites"]
    ]
    rest = {name: value for name, value in found.items() if name not in {"this_run", "promised", "limit", "planned"}}
    if found["planned"]:  # in words it stands among the claims
        told |= {"planned": found["planned"]["epsilon"]}
    return rest | {"epsilon": told, "sites": sites}


def _readable(found: dict[str, Any]) -> dict[str, Any]:
    """What a person wants to see of it: verdict, metrics and groups as two tables, and why it is so."""
    shown = ("value", "low", "high")
    metrics = [
        {"metric": name, **{key: row[key] for key in shown}, "verdict": _judged(row)}
        for name, row in found["metrics"].items()
    ]
    groups = [{key: value for key, value in row.items() if key != "intervals"} for row in found["groups"]]
    why = {name: row["reason"] for name, row in found["metrics"].items() if row["tolerance"] is not None}
    parts = {"metrics": metrics, "groups": groups, "why": why, "not_judged": found["not_judged"]}
    return {"verdict": found["verdict"], "reason": found["reason"], **parts}


def _judged(metric: dict[str, Any]) -> str:
    """The verdict on a metric; where nobody declared a tolerance there is none."""
    return "not judged" if metric["tolerance"] is None else str(metric["verdict"])


def _unclear(why: str) -> Refusal:
    return Refusal(
        Code.CONFIG_INVALID, "Nothing audited", why, "Give RUN, or --table FILE --label COLUMN --score COLUMN"
    )

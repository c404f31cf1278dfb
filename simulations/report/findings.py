"""Every number of the report, as plain values: what audit.json holds and the page shows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from common.participation import attendance, participation
from simulations.audits import fairness, privacy
from simulations.audits.fairness import LEVEL, Tolerance
from simulations.audits.groups import from_release
from simulations.audits.intervals import Share, quantile, wilson
from simulations.audits.runs import Run, artifacts
from simulations.report.attacks import kept
from simulations.report.lying import promised

SCHEMA = 1
_NOTHING = {"verdict": "INCONCLUSIVE", "reason": "the run released no counts by group", "metrics": {}, "groups": []}


def findings(run: Run, tolerance: Tolerance, sensitive: Sequence[str]) -> dict[str, Any]:
    """Both audits and what the page tells beside them; equal runs give equal values.

    Errors: Refusal DATA_INVALID, CONFIG_INVALID as the audits say.
    """
    judged = audit_fairness(run, tolerance, sensitive)
    return {
        "schema": SCHEMA,
        "run": run.facts["run"],
        "privacy": privacy.audit(run),
        "fairness": judged,
        "learning": _learning(run, judged),
        "attendance": attendance(run.size, run.rounds),
        "participation": _rows(run),
        "refusals": _refusals(run),
        "artifacts": artifacts(run),
        "planted": _planted(run),
        "robustness": promised(run),
        "adversaries": run.facts.get("adversaries"),
        "simulated": _simulated(run),
        **kept(run),
    }


def audit_fairness(run: Run, tolerance: Tolerance, sensitive: Sequence[str] = ()) -> dict[str, Any]:
    """The fairness audit of a run, by the named attributes or by all that were counted."""
    evaluation = run.facts.get("evaluation")
    if not evaluation:
        return {**_NOTHING, "tolerance": tolerance.difference, "attributes": [], "not_judged": [], "by_attribute": {}}
    tally = from_release(evaluation)
    return fairness.audit(tally.by(sensitive) if sensitive else tally, tolerance)


def _learning(run: Run, judged: Mapping[str, Any]) -> dict[str, Any]:
    """How well the model does, against the two things it must be compared with: pooled data, and each site alone."""
    facts, baselines = run.facts, run.facts.get("baselines") or {}
    overall = judged.get("overall") or {}
    accuracy, alone = _number(facts.get("accuracy")), _number(baselines.get("alone_accuracy"))
    seconds = _number(facts.get("seconds"))
    spent = [s for entry in run.rounds if (s := _number(entry.get("seconds"))) is not None]
    lonely = [value for one in (baselines.get("alone") or {}).values() if (value := _number(one)) is not None]
    return {
        "rounds": len(run.rounds),
        "seconds": seconds,
        "seconds_per_round": fmean(spent) if spent else None,
        "accuracy": accuracy,
        "accuracy_interval": _interval(accuracy, baselines.get("records")),
        "held_out_records": _whole(baselines.get("records")),
        "released_accuracy": overall.get("accuracy"),
        "released_interval": (overall.get("intervals") or {}).get("accuracy"),
        "pooled_accuracy": _number(baselines.get("pooled_accuracy")),
        "alone_accuracy": alone,
        "alone": [{"site": site, "accuracy": _number(value)} for site, value in (baselines.get("alone") or {}).items()],
        "alone_lowest": min(lonely, default=None),
        "alone_highest": max(lonely, default=None),
        "alone_sites": len(lonely),
        "chance": _number(baselines.get("chance")),
        "gain": accuracy - alone if accuracy is not None and alone is not None else None,
    }


def _rows(run: Run) -> list[dict[str, Any]]:
    """One row a site; none of a population too large for it."""
    known = {} if run.exact else {str(one["name"]): one for one in run.facts["manifest"]["sites"]}
    rows = participation(run.facts, run.rounds, run.sites) if run.listed else []
    return [_participation(run, row, known.get(row["site"], {})) for row in rows]


def _participation(run: Run, row: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    """In how many rounds a site's report was summed, what it refused, what it sent, whether its ledger is there.

    entry  of the manifest, where there is one
    """
    site = row["site"]
    refused = sum(refusal.get("site") == site for one in run.rounds for refusal in one.get("refusals", ()))
    sent = [one["bytes"][site] for one in run.rounds if site in (one.get("bytes") or {})]
    return {
        **row,
        "org": entry.get("org"),
        "nominal_records": entry.get("nominal_records"),
        "share": row["rounds"] / len(run.rounds) if run.rounds else None,
        "refusals": refused,
        "has_ledger": site in run.ledgers,
        "bytes": sum(sent) if sent else None,
    }


def _simulated(run: Run) -> dict[str, Any] | None:
    """Of a world with a clock: how the orders of work ended, and what that did to slow sites; None of any other run."""
    told = run.facts.get("simulated")
    if not isinstance(told, dict):
        return None
    answers, slow = (part if isinstance(part, dict) else {} for part in (told.get("answers"), told.get("slow")))
    return {
        "answers": {name: _number(count) for name, count in answers.items()},
        "late": _number(told.get("late")),
        "slow": {name: _number(slow.get(name)) for name in ("share", "summed", "weight", "accuracy")},
    }


def _planted(run: Run) -> int | None:
    """How many canaries were made up for the run, about half of which its model learned; None without any."""
    settings = (run.facts.get("world") or {}).get("settings") or {}
    return _whole((settings.get("canaries") or {}).get("count"))


def _refusals(run: Run) -> list[dict[str, Any]]:
    """How often each site refused with which code, most frequent first; a site left out for good at least once.

    Where sites are not told one by one: how often each code was given, and by how many `sites`.
    """
    counted = Counter((one["site"], one["code"]) for entry in run.rounds for one in entry.get("refusals", ()))
    for one in run.facts.get("refusals") or ():
        counted.setdefault((one["site"], one["code"]), 1)
    ordered = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    if run.listed:
        return [{"site": site, "code": code, "count": count, "sites": 1} for (site, code), count in ordered]
    sites, times = Counter(code for _, code in counted), Counter[str]()
    for (_, code), count in ordered:
        times[code] += count
    return [{"site": None, "code": code, "count": count, "sites": sites[code]} for code, count in sorted(times.items())]


def _interval(accuracy: float | None, records: object) -> list[float] | None:
    """Wilson's 95 % interval of an accuracy that was counted exactly on so many records."""
    count = _whole(records)
    if accuracy is None or count is None:
        return None
    found = wilson(Share(hits=accuracy * count, total=float(count)), quantile(LEVEL, 1))
    return [found.low, found.high]


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _number(value: object) -> float | None:
    """A finite number, or None for everything else: JSON has no other."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value

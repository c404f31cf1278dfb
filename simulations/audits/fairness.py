"""Does the model serve every group alike: rates by group, gaps with honest intervals, and a verdict on each."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.config import finite
from simulations.audits.groups import Tally
from simulations.audits.intervals import (
    Interval,
    Share,
    Verdict,
    difference,
    enough,
    magnitude,
    quantile,
    ratio,
    verdict,
    wilson,
)

LEVEL = 0.95
METHOD = (
    "Signed Newcombe hybrid score intervals that include the privacy noise, simultaneous over all pairs of groups "
    "(Bonferroni). PASS: the whole interval lies within the tolerance. FAIL: it lies beyond. Otherwise INCONCLUSIVE."
)

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rate:
    """A share of outcomes: `hits` among `among`, both masks over [label, prediction]."""

    hits: Mask
    among: Mask


_LABEL, _PREDICTED = np.indices((2, 2)).astype(bool)
_ALL = np.ones((2, 2), bool)
RATES = {
    "selection_rate": Rate(_PREDICTED, _ALL),
    "true_positive_rate": Rate(_PREDICTED, _LABEL),
    "false_positive_rate": Rate(_PREDICTED, ~_LABEL),
    "accuracy": Rate(_LABEL == _PREDICTED, _ALL),
}
DIFFERENCES = {
    "demographic_parity_difference": ("selection_rate",),
    "equal_opportunity_difference": ("true_positive_rate",),
    "false_positive_rate_difference": ("false_positive_rate",),
    "equalized_odds_difference": ("true_positive_rate", "false_positive_rate"),
    "accuracy_difference": ("accuracy",),
}
RATIOS = {"demographic_parity_ratio": "selection_rate", "accuracy_ratio": "accuracy"}
_NEEDS = {"true_positive_rate": "positive labels", "false_positive_rate": "negative labels"}


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """What the reader of the audit accepts, declared before looking; None is "nothing declared".

    difference  largest accepted difference of a rate between two groups, in (0, 1)
    ratio       smallest accepted ratio of a rate between two groups, in (0, 1]; 0.8 is the four-fifths rule
    """

    difference: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        for name in ("difference", "ratio"):
            if (value := getattr(self, name)) is not None:
                finite(value, f"tolerance of the {name}", above=0.0, at_most=1.0)


def audit(tally: Tally, tolerance: Tolerance) -> dict[str, Any]:
    """Every number of the fairness audit, plain values ready for JSON; undefined is None.

    The metrics at the top compare the cells of all attributes together (their product); `by_attribute` compares the
    groups of one attribute at a time. The verdict is the worst of all that a tolerance was declared for: one FAIL
    fails the audit, and it passes only if nothing is left open.
    """
    whole = _compare(tally, tolerance)
    alone = {name: _compare(tally.by([name]), tolerance) for name in tally.attributes if len(tally.attributes) > 1}
    parts = [whole, *alone.values()]
    every = [m for part in parts for m in part["metrics"].values() if m["tolerance"] is not None]
    verdicts = {metric["verdict"] for metric in every}
    worst = next((v for v in (Verdict.FAIL, Verdict.INCONCLUSIVE) if v in verdicts), Verdict.PASS)
    declared = tolerance != Tolerance()
    return {
        "verdict": (worst if declared else Verdict.INCONCLUSIVE).value,
        "reason": _reason(worst, every, whole["not_judged"]) if declared else "no tolerance declared",
        "tolerance": tolerance.difference,
        "ratio_tolerance": tolerance.ratio,
        "level": LEVEL,
        "method": METHOD,
        "noise_sd": tally.noise,
        "attributes": list(tally.attributes),
        "overall": _overall(tally),
        **whole,
        "by_attribute": alone,
    }


def _compare(tally: Tally, tolerance: Tolerance) -> dict[str, Any]:
    """Group table and metrics over the cells of `tally`; cells without records are left out."""
    kept = [i for i in range(len(tally.cells)) if _whole(tally, i).defined]
    names = tally.names()
    wanted = list(RATES) if tally.binary else ["accuracy"]
    shares = {rate: {names[i]: _share(tally, i, rate) for i in kept} for rate in wanted}
    differences = {name: rates for name, rates in DIFFERENCES.items() if set(rates) <= set(wanted)}
    metrics = {name: _difference(shares, rates, tolerance.difference) for name, rates in differences.items()}
    metrics |= {name: _ratio(shares[rate], tolerance.ratio) for name, rate in RATIOS.items() if rate in wanted}
    return {"metrics": metrics, "groups": _rows(tally, kept), "not_judged": _unseen(tally, kept)}


def _difference(shares: dict[str, dict[str, Share]], rates: tuple[str, ...], tolerance: float | None) -> dict[str, Any]:
    """The largest difference between two groups over the given rates."""
    pairs = [(rate, *pair) for rate in rates for pair in _pairs(shares[rate])]
    z = quantile(LEVEL, len(pairs))
    found = [(rate, a, b, difference(shares[rate][a], shares[rate][b], z)) for rate, a, b in pairs]
    blank = _undefined(shares, rates)
    if not found:
        return _empty(tolerance, blank or "there are fewer than two groups to compare")
    worst = magnitude(d for *_, d in found)
    worst = Interval(worst.value, worst.low, 1.0) if blank else worst
    outcome = verdict(worst, tolerance)
    needed = None
    if outcome is Verdict.INCONCLUSIVE and tolerance is not None and not blank:
        needed = _needed(shares, pairs, tolerance, z)
    return {
        **_measured(worst, tolerance, outcome),
        "reason": _why(outcome, tolerance, blank, needed),
        "n_to_decide": needed,
        "pairs": [{"rate": rate, "first": a, "second": b, **vars(d)} for rate, a, b, d in found],
    }


def _ratio(shares: dict[str, Share], tolerance: float | None) -> dict[str, Any]:
    """The smallest ratio of a rate between two groups. Here a large value is good, so the verdict is mirrored."""
    pairs = _pairs(shares)
    z = quantile(LEVEL, len(pairs))
    found = [r for a, b in pairs if (r := ratio(shares[a], shares[b], z)) is not None]
    if not found:
        return _empty(tolerance, "there are fewer than two groups with a share above zero")
    value, low, high = (min(getattr(r, name) for r in found) for name in ("value", "low", "high"))
    outcome = verdict(Interval(-value, -high, -low), None if tolerance is None else -tolerance)
    return {
        **_measured(Interval(value, low, high), tolerance, outcome),
        "reason": _why(outcome, tolerance, "", None),
        "n_to_decide": None,
        "pairs": [],
    }


def _needed(
    shares: dict[str, dict[str, Share]], pairs: list[tuple[str, str, str]], tolerance: float, z: float
) -> int | None:
    """Records a group needs until the metric decides: one pair beyond the tolerance, or every pair within."""
    beyond: list[float] = []
    within: list[float] = []
    for rate, a, b in pairs:
        first, second = shares[rate][a], shares[rate][b]
        count = enough(first, second, tolerance, z)
        wholes = [shares["accuracy"][group].total for group in (a, b)]
        part = min(first.total / wholes[0], second.total / wholes[1], 1.0)
        gap = abs((first.point or 0.0) - (second.point or 0.0))
        (beyond if gap > tolerance else within).append(math.inf if count is None else math.ceil(count / part))
    needed = min(beyond) if beyond else max(within)
    return _two_digits(int(needed)) if math.isfinite(needed) else None


def _two_digits(value: int) -> int:
    """`value` rounded up to two significant digits: an estimate of a sample size has no more."""
    scale: int = 10 ** max(0, len(str(value)) - 2)
    return -(-value // scale) * scale


def _pairs(shares: dict[str, Share]) -> list[tuple[str, str]]:
    return list(itertools.combinations([name for name, share in shares.items() if share.defined], 2))


def _undefined(shares: dict[str, dict[str, Share]], rates: tuple[str, ...]) -> str:
    """Why some group has no such rate, naming up to three groups; empty if all have."""
    reasons = []
    for rate in rates:
        groups = [group for group, share in shares[rate].items() if not share.defined]
        more = f" and {len(groups) - 3} more" if len(groups) > 3 else ""
        if groups:
            reasons.append(f"too few {_NEEDS.get(rate, 'records')} in {'; '.join(groups[:3])}{more}")
    return "; ".join(reasons)


def _measured(interval: Interval, tolerance: float | None, outcome: Verdict) -> dict[str, Any]:
    return {**vars(interval), "tolerance": tolerance, "verdict": outcome.value}


def _empty(tolerance: float | None, reason: str) -> dict[str, Any]:
    """A metric that has no value, which is not the same as a value of zero."""
    nothing = {"value": None, "low": None, "high": None, "tolerance": tolerance}
    return {**nothing, "verdict": "INCONCLUSIVE", "reason": reason, "n_to_decide": None, "pairs": []}


def _why(outcome: Verdict, tolerance: float | None, blank: str, needed: int | None) -> str:
    if tolerance is None:
        return "no tolerance declared"
    if outcome is not Verdict.INCONCLUSIVE:
        return "the whole interval lies " + ("within" if outcome is Verdict.PASS else "beyond") + " the tolerance"
    if blank:
        return blank
    return "the interval holds the tolerance" + (f"; about {needed} records a group would decide" if needed else "")


def _reason(worst: Verdict, metrics: list[dict[str, Any]], unseen: list[str]) -> str:
    count = sum(metric["verdict"] == worst for metric in metrics)
    small = f"; {len(unseen)} cells cannot be told from empty under the noise" if unseen else ""
    return f"{count} of {len(metrics)} comparisons: {worst.value}{small}"


def _rows(tally: Tally, kept: list[int]) -> list[dict[str, Any]]:
    """The group table: points by fairlearn, undefined ones None, each with its own interval."""
    from simulations.audits.frame import by_group

    points, names = by_group(tally, kept), tally.names()
    rows = []
    for place, i in enumerate(kept):
        shares = {rate: _share(tally, i, rate) for rate in (RATES if tally.binary else ["accuracy"])}
        defined = {rate: points[rate][place] if share.defined else None for rate, share in shares.items()}
        ranges = {rate: _range(share) for rate, share in shares.items()}
        n = round(max(0.0, _whole(tally, i).total))
        rows.append({"group": names[i], "n": n, **dict.fromkeys(RATES), **defined, "intervals": ranges})
    return rows


def _overall(tally: Tally) -> dict[str, Any] | None:
    """The same rates over everyone."""
    everyone = tally.by([])
    return _rows(everyone, [0])[0] if _whole(everyone, 0).defined else None


def _range(share: Share) -> list[float] | None:
    """95 % interval of one share by itself, not simultaneous."""
    if not share.defined:
        return None
    interval = wilson(share, quantile(LEVEL, 1))
    return [interval.low, interval.high]


def _unseen(tally: Tally, kept: list[int]) -> list[str]:
    """Groups of a noisy release that cannot be told from empty ones; an exact zero is simply no group."""
    return [name for i, name in enumerate(tally.names()) if i not in kept] if tally.noise else []


def _share(tally: Tally, cell: int, rate: str) -> Share:
    return tally.share(cell, RATES[rate].hits, RATES[rate].among)


def _whole(tally: Tally, cell: int) -> Share:
    return _share(tally, cell, "accuracy")

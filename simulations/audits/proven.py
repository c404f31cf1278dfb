"""What a canary audit proves, as its result tells it: a lower bound against a claim, and why the verdict is so."""

from __future__ import annotations

from typing import Any

from simulations.audits.games import Bound
from simulations.audits.intervals import Verdict


def reason(metrics: dict[str, Any], main: str) -> str:
    """Why the verdict is what it is: what broke the promise, if something did; else what the game `main` shows."""
    broken = (metric["reason"] for metric in metrics.values() if metric["verdict"] == Verdict.FAIL)
    return str(next(broken, metrics[main]["reason"]))


def judged(
    found: Bound, claimed: float | None, power: float, missing: str, advice: str = "Plant more canaries"
) -> dict[str, Any]:
    """A lower bound against a claim. power: the largest figure that this game would have given without any noise.

    missing: why there is no claim, if there is none      advice: what to do where the power is not enough
    """
    told = f"{found.guesses.right} of {found.guesses.made} guesses by the {found.attack} were right"
    proof = f"{told}, so epsilon is at least {found.epsilon:.2f}"
    most = f"without any noise it would have seen {power:.2f}"
    if claimed is None:
        verdict, why = Verdict.INCONCLUSIVE, f"{proof}; {missing}"
    elif found.epsilon > claimed:
        verdict, why = Verdict.FAIL, f"{proof}, above the {claimed:.2f} that is claimed: the promise does not hold"
    elif power <= claimed:
        verdict = Verdict.INCONCLUSIVE
        why = f"{proof}; {claimed:.2f} is claimed, and {most}, which is not above it. {advice}"
    else:
        verdict, why = Verdict.PASS, f"{proof}; {claimed:.2f} is claimed, and {most}"
    return {
        **shown(found.epsilon, why),
        "tolerance": claimed,
        "verdict": verdict.value,
        "most": power,
        "guesses": found.guesses.made,
        "right": found.guesses.right,
        "attack": found.attack,
    }


def shown(value: float, why: str) -> dict[str, Any]:
    """A lower bound that nobody promised anything about."""
    return {
        "value": value, "low": value, "high": None, "tolerance": None, "verdict": "INCONCLUSIVE", "reason": why,
    }  # fmt: skip

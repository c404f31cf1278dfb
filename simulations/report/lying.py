"""Lying sites: what the job's rule promises against them, and what those of a simulation came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from markupsafe import Markup

from common.errors import Refusal
from server.robustness import LIMITS, UNBOUND, promise
from server.strategies.catalogue import strategy
from simulations.audits.runs import Run
from simulations.report.numbers import count, percent

_ATTACKED = (
    "{} of {} sites lied from round {} on, as the simulation had them do ({}). The model, its accuracy and its "
    "fairness are those of such a run: use it for nothing else."
)
_ACCURACY = (
    "With them the model is right on {} of the held-out records; without them it would be on {} (difference {})."
)
_BACKDOOR = (
    "Of the triggered held-out records {} get the class that the liars want (95 % interval {} to {}), where without "
    "them {} would. The difference, {}, is the attack’s doing."
)
_UNTARGETED = (
    "This attack wants no class in particular, so there is no backdoor to measure. That says nothing of one that would."
)
_QUIET = (
    "Liars add no noise. The promise of privacy counts on at most {} sites that leave theirs out, and here {} did: it "
    "does not hold for this run."
)
_NO_RULE = "This version does not know the job’s rule or its settings, so nothing is promised of it."


def promised(run: Run) -> dict[str, Any] | None:
    """What the job's rule promises, computed anew from job and number of sites; None where it does not vote.

    `holds` is all that allows the word robust; `words` says it for people, `limits` what it never covers.
    """
    asked = run.facts["job"].get("aggregation") or {}
    groups, lying = asked.get("groups", 1), run.facts.get("adversaries")
    if groups == 1 and not lying:
        return None
    rule, liars = str(asked.get("strategy", "")), lying["count"] if lying else None
    shape = {"sites": run.size, "groups": groups, "cohort": asked.get("cohort")}
    try:
        combine = strategy(rule, **asked.get("settings", {})).combine
        made = promise(combine, **shape)
    except (Refusal, TypeError, ValueError):
        return {"rule": rule, "holds": False, "words": _NO_RULE, "limits": LIMITS, "faced": None}
    return {
        "rule": rule,
        **asdict(made),
        "holds": made.holds,
        "words": made.words,
        "limits": LIMITS if groups > 1 else UNBOUND,
        "faced": {"liars": liars, "holds": made.holds and liars <= combine.liars} if liars else None,
    }


def lying_words(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """The sentences of the section; `shown` says whether there is one."""
    made, told = found["robustness"], run.facts.get("adversaries")
    return {
        "shown": made is not None,
        "attacked": _attacked(run, told) if told else "",
        "promise": Markup.escape(made["words"]) if made else "",
        "limits": Markup.escape(made["limits"]) if made else "",
        "measured": _measured(told) if told else [],
        "quiet": _quiet(run, told) if told else "",
    }


def attack_of(told: Mapping[str, Any]) -> str:
    """What the liars do, in few words: "patch in records, then replacement, knowing only their own updates"."""
    parts = [f"{told['records']} in records"] if told["records"] else []
    if told["updates"]:
        knowing = "every honest update" if told["knows"] == "honest" else "only their own"
        adaptive = ", strength searched each round" if told["adaptive"] else ""
        parts.append(f"{told['updates']} in updates, knowing {knowing}{adaptive}")
    return "; ".join(parts)


def _attacked(run: Run, told: Mapping[str, Any]) -> Markup:
    return _said(_ATTACKED, count(told["count"]), count(run.size), count(told["from_round"]), attack_of(told))


def _measured(told: Mapping[str, Any]) -> list[Markup]:
    """The attack's figures as sentences."""
    sentences = []
    if told["accuracy"] and told["without"] and told["difference"]:
        values = (told["accuracy"], told["without"])
        sentences.append(_said(_ACCURACY, *(percent(each["value"]) for each in values), _signed(told["difference"])))
    backdoor = told["backdoor"]
    if backdoor is None:
        sentences.append(Markup.escape(_UNTARGETED))
    elif backdoor["rate"]:
        rate, base, lift = (backdoor[name] for name in ("rate", "base", "lift"))
        shown = (percent(rate[name]) for name in ("value", "low", "high"))
        sentences.append(_said(_BACKDOOR, *shown, percent(base["value"]), _signed(lift)))
    return sentences


def _quiet(run: Run, told: Mapping[str, Any]) -> Markup:
    """That liars of modes whose noise adds up over sites leave theirs out, where they are more than counted on."""
    privacy = run.facts["job"].get("privacy", {})
    counted = privacy.get("colluding") or 0
    if told["updates"] is None or privacy.get("mode") not in ("M2", "M4") or told["count"] <= counted:
        return Markup("")
    return _said(_QUIET, count(counted), count(told["count"]))


def _signed(interval: Mapping[str, float]) -> Markup:
    """A difference of shares with its interval."""
    ends = _said("{} to {}", percent(interval["low"]), percent(interval["high"]))
    return _said("{}, 95 % interval {}", percent(interval["value"]), ends)


def _said(text: str, *values: Markup | str) -> Markup:
    """`text` of this file with values in its places; a value that is no markup is escaped."""
    return Markup(text).format(*values)  # noqa: S704 - the text is ours

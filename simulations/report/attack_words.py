"""What the page says and draws of attacks on a run: how they were made, what they prove, and what they do not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from simulations.audits.runs import Run
from simulations.report.attacks import ATTACKS
from simulations.report.brackets import Bracket, brackets
from simulations.report.numbers import count

ATTACK_NAMES = {
    "epsilon_lower_bound": "Epsilon, proven by this run’s canaries",
    "epsilon_lower_bound_gaussian": "The same, if every release were a Gaussian one",
    "epsilon_without_noise": "The same, had no noise been added",
    "mechanism_epsilon_lower_bound": "Epsilon, proven by canaries against the mechanism alone",
}

_OPENING = (
    "What an adversary makes of this run, who knows every record but the one that is guessed. An attack can break a "
    "promise; one that fails proves nothing, and the guarantee rests on the ledgers alone."
)
_PLANTED = (
    "{} records were made up and planted by coins, about half of them in the training data, with labels at random. The "
    "model, its accuracy and its fairness are those of such a run: use it for nothing else."
)
_MISSING = "Not attacked yet by {}: hushfed audit NAME RUN makes the attack and adds it here."


def attack_words(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """The sentences of the section by name; `shown` says whether there is one: of simulated runs, and of attacked."""
    missing = [name for name in ATTACKS if not found[name] and (name != "canaries" or found["planted"])]
    planted = found["planted"]
    return {
        "shown": bool(run.facts.get("world")) or any(found[name] for name in ATTACKS),
        "opening": Markup.escape(_OPENING),
        "planted": _said(_PLANTED, count(planted)) if planted else "",
        "canaries": _said("{}.", _capital(found["canaries"]["reason"])) if found["canaries"] else "",
        "missing": _said(_MISSING, " and ".join(missing)) if missing else "",
    }


def planted_limit(found: Mapping[str, Any]) -> Markup | None:
    """What stands on page and card of a run that was made to be audited; None for other runs."""
    return _said(_PLANTED, count(found["planted"])) if found["planted"] else None


def attack_drawings(found: Mapping[str, Any]) -> dict[str, Markup | None]:
    """The figures of the section by name; None where an attack was not made."""
    return {"canaries": _brackets(found["canaries"]) if found["canaries"] else None}


def _brackets(canaries: Mapping[str, Any]) -> Markup:
    """The games of the canary audit: records in the run, and the mechanism alone."""
    names = {
        "epsilon_lower_bound": "Canaries in the run",
        "mechanism_epsilon_lower_bound": "Canaries against its mechanism alone",
    }
    rows = [
        Bracket(
            name=names[name], shown=metric["value"], claimed=metric["tolerance"], most=metric["most"],
            style=metric["verdict"].lower() if metric["tolerance"] is not None else "",
        )
        for name, metric in canaries["metrics"].items()
        if name in names
    ]  # fmt: skip
    return brackets("Claimed epsilon and its proven lower bound", rows)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _said(text: str, *values: Markup | str) -> Markup:
    """`text` of this file with values in its places; a value that is no markup is escaped."""
    return Markup(text).format(*values)  # noqa: S704 - the text is ours

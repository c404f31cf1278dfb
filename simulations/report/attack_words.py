"""What the page says and draws of attacks on a run: how they were made, what they prove, and what they do not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from simulations.audits.runs import Run
from simulations.report.attacks import ATTACKS
from simulations.report.brackets import Bracket, brackets
from simulations.report.figures import Axis, Chart, Curve, curves
from simulations.report.numbers import count
from simulations.report.pictures import picture

MEMBERSHIP = {
    "loss": "Loss",
    "lira_offline": "LiRA, offline",
    "lira_online": "LiRA, online",
    "site_loss": "Loss on a site’s records",
    "site_position": "Position of the model",
}
GAMES = {
    "epsilon_lower_bound": ("Canaries in the run", "Canary sites in the run"),
    "mechanism_epsilon_lower_bound": ("Canaries against its mechanism alone", "Canary sites against its mechanism"),
    "local_epsilon_lower_bound": ("", "Canary records against a site’s own noise"),
}
ATTACK_NAMES = {
    "epsilon_lower_bound": "Epsilon, proven by this run’s canaries",
    "epsilon_lower_bound_gaussian": "The same, if every release were a Gaussian one",
    "epsilon_without_noise": "The same, had no noise been added",
    "mechanism_epsilon_lower_bound": "Epsilon, proven by canaries against the mechanism alone",
    "local_epsilon_lower_bound": "Epsilon of a record, proven by canaries against the noise inside a site",
    "psnr_without_dp": "PSNR in dB, from the gradient itself",
    "psnr_with_dp": "PSNR in dB, from what the run’s mechanism releases",
    "psnr_in_sum": "PSNR in dB, from the exact sum that the coordinator sees",
    "ssim_without_dp": "SSIM, from the gradient itself",
    "ssim_with_dp": "SSIM, from what the run’s mechanism releases",
    "ssim_in_sum": "SSIM, from the exact sum that the coordinator sees",
    "error_without_dp": "Mean error as a share of the range, from the gradient itself",
    "error_with_dp": "Mean error as a share of the range, from what the run’s mechanism releases",
    "error_in_sum": "Mean error as a share of the range, from the exact sum that the coordinator sees",
    **{
        f"{attack}_{figure}": f"{title}: {what}"
        for attack, title in MEMBERSHIP.items()
        for figure, what in (
            ("auc", "area under the curve"),
            ("tpr_at_1_percent", "members found at 1 % false alarms"),
            ("tpr_at_0.1_percent", "members found at 0.1 % false alarms"),
        )
    },
}

_OPENING = (
    "What an adversary makes of this run, who knows every record but the one that is guessed. An attack can break a "
    "promise; one that fails proves nothing, and the guarantee rests on the ledgers alone."
)
_PLANTED = (
    "{} records were made up and planted by coins, about half of them in the training data, with labels at random. The "
    "model, its accuracy and its fairness are those of such a run: use it for nothing else."
)
_PLANTED_SITES = (
    "{} whole sites were made up besides the others, about half of which trained on anything, with labels at random. "
    "The model, its accuracy and its fairness are those of such a run: use it for nothing else."
)
_REBUILT = (
    "These are training records of a simulated world. A page that shows them must not leave the place where those may "
    "be seen."
)
_MISSING = "Not attacked yet by {}: hushfed audit NAME RUN makes the attack and adds it here."


def attack_words(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """The sentences of the section by name; `shown` says whether there is one: of simulated runs, and of attacked.

    A run whose sums were formed without masks has no ledgers, so no claim that an attack could be held against.
    """
    able = found["planted"] or _by_site(found)  # without any canaries in it, only a mechanism for sites is tried
    missing = [name for name in ATTACKS if not found[name] and (name != "canaries" or able)]
    return {
        "shown": not run.exact and (bool(run.facts.get("world")) or any(found[name] for name in ATTACKS)),
        "opening": Markup.escape(_OPENING),
        "planted": planted_limit(found) or "",
        "canaries": _said("{}.", _capital(found["canaries"]["reason"])) if found["canaries"] else "",
        "membership": _said("{}.", _capital(found["membership"]["reason"])) if found["membership"] else "",
        "others": "models without a site" if _by_site(found) else "held-out records",
        "membership_key": _membership_key(found["membership"]) if found["membership"] else [],
        "inversion": _said("{}.", _capital(found["inversion"]["reason"])) if found["inversion"] else "",
        "rebuilt": _REBUILT if found["inversion"] else "",
        "missing": _said(_MISSING, " and ".join(missing)) if missing else "",
    }


def planted_limit(found: Mapping[str, Any]) -> Markup | None:
    """What stands on page and card of a run that was made to be audited; None for other runs."""
    text = _PLANTED_SITES if _by_site(found) else _PLANTED
    return _said(text, count(found["planted"])) if found["planted"] else None


def attack_drawings(found: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of the section by name; None where an attack was not made."""
    return {
        "canaries": _brackets(found["canaries"]) if found["canaries"] else None,
        "membership": _rates(found["membership"]) if found["membership"] else None,
        "inversion": _pictures(found["inversion"]) if found["inversion"] else [],
    }


def _brackets(canaries: Mapping[str, Any]) -> Markup:
    """The games of the canary audit: in the run, against the mechanism alone, and against the noise inside sites."""
    whole = canaries.get("unit") == "site"
    rows = [
        Bracket(
            name=GAMES[name][whole], shown=metric["value"], claimed=metric["tolerance"], most=metric["most"],
            style=metric["verdict"].lower() if metric["tolerance"] is not None else "",
        )
        for name, metric in canaries["metrics"].items()
        if name in GAMES
    ]  # fmt: skip
    return brackets("Claimed epsilon and its proven lower bound", rows)


def _rates(membership: Mapping[str, Any]) -> Markup:
    """Members found against false alarms, both on a scale of powers of ten, below what the claim allows."""
    lines = [
        Curve(name=title, points=_points(membership["rates"], membership["curves"][attack]), style=style)
        for attack, title, style in _attacks(membership)
    ]
    lines.append(Curve(name="guessing", points=_points(membership["rates"], membership["rates"]), style="s4"))
    if membership["allowed"]:
        allowed = _points(membership["rates"], membership["allowed"])
        lines.append(Curve(name="allowed by the claim", points=allowed, style="allowed"))
    axis = Axis(low=-3.0, high=0.0, percent=True, power=True)
    return curves(Chart(title="Members found by false alarms", x=axis, y=axis, curves=lines))


def _pictures(inversion: Mapping[str, Any]) -> list[list[Markup | None]]:
    """For each record its images: as it is, rebuilt without, and rebuilt with the run's protection."""
    if inversion["kind"] != "image":
        return []
    names = {"original": "the record", "without_dp": "from its gradient", "with_dp": "from what the mechanism releases"}
    names |= {"in_sum": "from the coordinator’s sum"} if any("in_sum" in one for one in inversion["shown"]) else {}
    return [[_picture(one, name, title) for name, title in names.items()] for one in inversion["shown"]]


def _picture(one: Mapping[str, Any], name: str, title: str) -> Markup | None:
    return picture(f"{title}, {one['site']}", one[name], one["shape"]) if one[name] else None


def _membership_key(membership: Mapping[str, Any]) -> list[tuple[str, str]]:
    known = [(title, style) for _, title, style in _attacks(membership)]
    return [*known, ("guessing", "s4"), *([("allowed by the claim", "allowed")] if membership["allowed"] else [])]


def _attacks(membership: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """The attacks that were made, each with its title and its style."""
    made = [(name, title) for name, title in MEMBERSHIP.items() if name in membership["curves"]]
    return [(name, title, f"s{i}") for i, (name, title) in enumerate(made)]


def _by_site(found: Mapping[str, Any]) -> bool:
    return bool(found["privacy"]["unit"] == "site")


def _points(across: Sequence[float], up: Sequence[float]) -> list[tuple[float, float | None]]:
    """Logarithms to base 10 of shares; a share below the axis is drawn on its end."""
    return [(math.log10(x), math.log10(max(y, 1e-3))) for x, y in zip(across, up, strict=True)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _said(text: str, *values: Markup | str) -> Markup:
    """`text` of this file with values in its places; a value that is no markup is escaped."""
    return Markup(text).format(*values)  # noqa: S704 - the text is ours

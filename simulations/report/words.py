"""What the page says in sentences: verdicts in words, and the limits that belong to every number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from common.participation import absences, unverified
from simulations.audits.runs import Run
from simulations.report import open_words
from simulations.report.attack_words import planted_limit
from simulations.report.numbers import THIN, count, epsilon, number, percent, small

ACCURACIES = {
    "accuracy": "Accuracy, exact on all held-out records",
    "released_accuracy": "Accuracy, from released counts",
    "pooled_accuracy": "Pooled data, without privacy",
    "alone_accuracy": "A site alone, mean",
}


def words(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """Every sentence of the page by name."""
    return {
        "opening": _opening(run, found),
        "trainers": _trainers(found["attendance"]),
        "unverified": unverified(found["participation"]),
        "privacy": _privacy(found["privacy"], exact=run.exact),
        "fairness": _fairness(found["fairness"]),
        "learning": _learning(found["learning"]),
        "epsilon": _epsilon(found["privacy"]),
        "curves": _curves(found["privacy"]),
        "ledger": _ledger(found["privacy"]),
        "guarantee": open_words.GUARANTEE if run.exact else _GUARANTEE,
        "present": open_words.PRESENT if run.exact else _PRESENT,
        "learning_section": _baselines(found["learning"]),
        "fairness_section": _fairness_section(found["fairness"], exact=run.exact),
        "gaps": _gaps(found["fairness"]),
        "limits": limits(run, found),
        "accuracies": ACCURACIES,
    }


MOST_ABSENT = 6  # sites whose absence is told one by one in the opening
_OPENING = "and no record left the site that holds it"
_GUARANTEE = (
    "The guarantee is recomputed here from the sites’ signed ledgers alone, not copied from what the run said about "
    "itself."
)
_PRESENT = "A site counts as present in a round when its masked report went into the sum."
_COVERS = (
    "Epsilon covers what left the sites as sums. It does not cover who took part, when, how long it took, which "
    "refusals occurred, the public nominal sizes, or choices made by looking at several runs."
)
_HONESTY = (
    "The figures rest on sites that run the named software. A site can always weaken the protection of its own "
    "records; the ledgers prove what was charged, not which program ran."
)
_PERSONS = (
    "If one person has records at several sites, or several records at one, that person’s loss is larger than one "
    "record’s; the ledgers of those sites then have to be composed."
)
_KEYS = (
    "Signatures are checked with the keys of the manifest that lies in the run itself. Compare the manifest’s digest, "
    "under Provenance, with the one that your federation signed."
)
_TOGETHER = (
    "The noise of several sites adds up inside secure aggregation. The guarantee holds while no more sites than the "
    "job declares tell their noise to the server."
)
_MEASURED = (
    "Accuracies of the model, of pooled data and of each site alone were measured by the simulation, which sees every "
    "record. A federation of real sites cannot print them; it has the released counts."
)
_GROUPS = (
    "The fairness verdict speaks of the named groups, on held-out records of these sites, with these labels. It says "
    "nothing about other groups, or about whether the labels themselves are fair."
)
_NOISY = "Each count by group carries privacy noise (standard deviation {} records); intervals include it."


def limits(run: Run, found: Mapping[str, Any]) -> list[Markup]:
    """What is not covered, chosen by what ran; never empty."""
    facts, fairness = run.facts, found["fairness"]
    chosen = [
        (_COVERS, True),
        (open_words.LIMIT, run.exact),
        (open_words.ONE_POOL, open_words.from_one_pool(facts)),
        (_HONESTY, not run.exact),
        (_PERSONS, True),
        (_KEYS, not run.exact),
        (_TOGETHER, facts["job"].get("privacy", {}).get("mode") == "M2"),
        (_MEASURED, bool(facts.get("baselines")) or facts.get("accuracy") is not None),
        (_GROUPS, bool(fairness["metrics"])),
    ]
    told = [Markup.escape(text) for text, holds in chosen if holds]
    told = [*([planted] if (planted := planted_limit(found)) else []), *told]
    noise = fairness.get("noise_sd")
    return [*told, _said(_NOISY, number(noise, 1))] if noise else told


def _opening(run: Run, found: Mapping[str, Any]) -> Markup:
    job = run.facts["job"]
    dataset = job.get("dataset") or job.get("data", {}).get("dataset") or "their own data"
    text = "{} trained one {} model on {} in {} rounds, {}."
    rounds, end = count(found["learning"]["rounds"]), open_words.OPENING if run.exact else _OPENING
    told = _said(text, _trainers(found["attendance"]), job["model"]["name"], dataset, rounds, end)
    absent = absences(found["participation"])
    if len(absent) > MOST_ABSENT:
        return told + _said(" {} sites contributed to no round; they are listed below.", count(len(absent)))
    return told + Markup("").join(_said(" {}", one) for one in absent)


def _trainers(attended: Mapping[str, Any]) -> str:
    """How many sites gave something, and of how many where some did not."""
    some, whole = (f"{attended[name]:,}".replace(",", THIN) for name in ("trained", "sites"))
    return f"{some} sites" if some == whole else f"{some} of {whole} sites"


def _privacy(privacy: Mapping[str, Any], *, exact: bool) -> Markup:
    if exact:
        return open_words.privacy(privacy["planned"])
    if privacy["verdict"] != "PASS":
        return Markup.escape(
            "The ledgers do not support what the run claims, so no ε is stated for it; the findings are listed below."
        )
    if privacy["epsilon"] is None:
        return Markup.escape("The ledgers are intact. The run added no noise that could be claimed.")
    told = (
        "Every ledger verifies and every figure recomputes. This run cost no {} more than ε = {}{}; all runs in the "
        "ledgers together, no more than ε = {}."
    )
    return _said(told, _unit(privacy), epsilon(privacy["this_run"]), _promise(privacy), epsilon(privacy["epsilon"]))


def _promise(privacy: Mapping[str, Any]) -> Markup:
    """What the job promised for the run, after what the run cost."""
    return _said(", of the promised {}", epsilon(privacy["promised"])) if privacy["promised"] else Markup("")


def _epsilon(privacy: Mapping[str, Any]) -> Markup:
    if privacy["planned"]:
        return open_words.epsilon_of(privacy["planned"])
    if privacy["verdict"] != "PASS":
        return Markup.escape("ε: the audit failed, so none is stated")
    if privacy["epsilon"] is None:
        return Markup.escape("ε, no privacy claimed")
    whose = "one whole site" if privacy["unit"] == "site" else "one record of a site"
    told = "ε of this run{}, for {}, add or remove one, δ = {}. All runs in the ledgers: {}"
    return _said(told, _promise(privacy), whose, small(privacy["delta"]), epsilon(privacy["epsilon"]))


def _unit(privacy: Mapping[str, Any]) -> str:
    """What one epsilon protects."""
    return str(privacy["unit"] or "record")


def _ledger(privacy: Mapping[str, Any]) -> Markup:
    if not privacy.get("limit"):
        return Markup.escape("Chains, signatures and heads were checked with the keys of the manifest.")
    text = (
        "Chains, signatures and heads were checked with the keys of the manifest. A bar is what this run cost the "
        "site; a full one is the ε = {} that the job promised for this run. All runs are all that the ledger holds."
    )
    return _said(text, epsilon(privacy["promised"]))


def _curves(privacy: Mapping[str, Any]) -> str:
    """What the curves of epsilon are over, and whether the job's promise can be drawn beside them."""
    text = (
        "Everything in a site’s ledger, all runs together, after each round of this one; the curves of sites that "
        "took part alike lie on each other."
    )
    return text if only_run(privacy) else f"{text} The job’s promise is for this run alone and is not drawn."


def only_run(privacy: Mapping[str, Any]) -> bool:
    """Whether no ledger holds another run: then its figures may be held against what this one promised."""
    return all(site["recomputed"] == site["run_epsilon"] for site in privacy["sites"])


def _fairness(fairness: Mapping[str, Any]) -> Markup:
    verdict, tolerance = fairness["verdict"], fairness.get("tolerance")
    if tolerance is None:
        return Markup.escape(f"No verdict: {fairness['reason']}.")
    if verdict == "PASS":
        return _said("Every compared rate differs by at most {} between groups.", percent(tolerance))
    if verdict == "FAIL":
        return _said("At least one rate differs by more than {} between groups.", percent(tolerance))
    open_ones = [m for m in fairness["metrics"].values() if m["tolerance"] and m["verdict"] == "INCONCLUSIVE"]
    needed = [m["n_to_decide"] for m in open_ones]
    if not needed or None in needed:
        return _said("The evidence does not decide against a tolerance of {}.", percent(tolerance))
    text = "Too few records to decide against a tolerance of {}. About {} a group would decide every comparison."
    return _said(text, percent(tolerance), count(max(needed)))


def _fairness_section(fairness: Mapping[str, Any], *, exact: bool) -> Markup:
    if not fairness["metrics"]:
        return Markup.escape(f"Not audited: {fairness['reason']}.")
    if not fairness["attributes"]:
        return Markup.escape("The job tells no groups apart, so nothing is compared; rates are those of everyone.")
    groups = " and ".join(fairness["attributes"])
    text = (
        "Groups by {} are compared by counts over held-out records{}. A verdict needs the whole interval on one side "
        "of a tolerance that somebody declared."
    )
    return _said(text, groups, "" if exact else ", summed under secure aggregation")


def _gaps(fairness: Mapping[str, Any]) -> Markup:
    if fairness.get("tolerance") is None:
        return Markup.escape("Bars are simultaneous 95 % intervals over all pairs. No tolerance was declared.")
    text = "Bars are simultaneous 95 % intervals over all pairs; the shaded zone is the tolerance of {}."
    return _said(text, percent(fairness["tolerance"]))


def _learning(learning: Mapping[str, Any]) -> Markup:
    """One sentence that compares, without calling a difference significant."""
    accuracy, alone, pooled = (learning[name] for name in ("accuracy", "alone_accuracy", "pooled_accuracy"))
    if accuracy is None:
        if learning["released_accuracy"] is None:
            return Markup.escape("No accuracy was measured.")
        ends = _range(learning["released_interval"])
        return _said("Released counts give an accuracy of {}{}.", percent(learning["released_accuracy"]), ends)
    text = _said("Together {}{}", percent(accuracy), _range(learning["accuracy_interval"]))
    if alone is not None:
        text += _said("; a site alone reaches {} on average", percent(alone))
    if pooled is not None:
        text += _said("; all data in one place, without privacy, {}", percent(pooled))
    return text + Markup(".")


def _range(ends: Sequence[float] | None) -> Markup:
    """The 95 % interval of an accuracy, in brackets."""
    return Markup("") if ends is None else _said(" (95 % interval {} to {})", percent(ends[0]), percent(ends[1]))


def _baselines(learning: Mapping[str, Any]) -> Markup:
    if learning["accuracy"] is None:
        return Markup.escape("What the released sums say about the model; nobody saw more.")
    return Markup.escape(
        "How the federated model compares with the two alternatives: every site by itself, and all data in one place."
    )


def _said(text: str, *values: Markup | str) -> Markup:
    """`text` of this file with values in its places; a value that is no markup is escaped."""
    return Markup(text).format(*values)  # noqa: S704 - the text is ours

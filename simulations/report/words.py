"""What the page says in sentences: verdicts in words, and the limits that belong to every number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from simulations.audits.runs import Run
from simulations.report.numbers import count, epsilon, number, percent, small


def words(run: Run, found: Mapping[str, Any]) -> dict[str, Any]:
    """Every sentence of the page by name."""
    return {
        "opening": _opening(run, found),
        "privacy": _privacy(found["privacy"]),
        "fairness": _fairness(found["fairness"]),
        "learning": _learning(found["learning"]),
        "epsilon": _epsilon(found["privacy"]),
        "ledger": _ledger(found["privacy"]),
        "learning_section": _baselines(found["learning"]),
        "fairness_section": _fairness_section(found["fairness"]),
        "gaps": _gaps(found["fairness"]),
        "limits": limits(run, found),
    }


def limits(run: Run, found: Mapping[str, Any]) -> list[Markup]:
    """What is not covered, chosen by what ran; never empty."""
    privacy = run.facts["job"].get("privacy", {})
    told = [
        "Epsilon covers what left the sites as sums. It does not cover who took part, when, how long it took, which "
        "refusals occurred, the public nominal sizes, or choices made by looking at several runs.",
        "The figures rest on sites that run the named software. A site can always weaken the protection of its own "
        "records; the ledgers prove what was charged, not which program ran.",
        "If one person has records at several sites, or several records at one, that person’s loss is larger than one "
        "record’s; the ledgers of those sites then have to be composed.",
    ]
    if privacy.get("mode") == "M2":
        told.append(
            "The noise of several sites adds up inside secure aggregation. The guarantee holds while no more sites "
            "than the job declares tell their noise to the server."
        )
    if run.facts.get("baselines") or run.facts.get("accuracy") is not None:
        told.append(
            "Accuracies of the model, of pooled data and of each site alone were measured by the simulation, which "
            "sees every record. A federation of real sites cannot print them; it has the released counts."
        )
    if found["fairness"]["metrics"]:
        told.append(
            "The fairness verdict speaks of the named groups, on held-out records of these sites, with these labels. "
            "It says nothing about other groups, or about whether the labels themselves are fair."
        )
    if found["fairness"].get("noise_sd"):
        noise = number(found["fairness"]["noise_sd"], 1)
        text = "Each count by group carries privacy noise (standard deviation {} records); intervals include it."
        return [*map(Markup.escape, told), Markup(text).format(noise)]
    return [Markup.escape(text) for text in told]


def _opening(run: Run, found: Mapping[str, Any]) -> Markup:
    job = run.facts["job"]
    dataset = job.get("dataset") or job.get("data", {}).get("dataset") or "their own data"
    text = "{} sites trained one {} model on {} in {} rounds, and no record left the site that holds it."
    sites, rounds = count(len(found["participation"])), count(found["learning"]["rounds"])
    return Markup(text).format(sites, job["model"]["name"], dataset, rounds)


def _privacy(privacy: Mapping[str, Any]) -> Markup:
    if privacy["verdict"] != "PASS":
        return Markup.escape("The ledgers do not support what the run claims; the findings are listed below.")
    if privacy["epsilon"] is None:
        return Markup.escape("The ledgers are intact. The run added no noise that could be claimed.")
    return Markup("Every ledger verifies and every figure recomputes. No record costs more than ε = {}.").format(
        epsilon(privacy["epsilon"])
    )


def _epsilon(privacy: Mapping[str, Any]) -> Markup:
    if privacy["epsilon"] is None:
        return Markup.escape("ε, no privacy claimed")
    return Markup("ε for one record of a site, add or remove one, δ = {}").format(small(privacy["delta"]))


def _ledger(privacy: Mapping[str, Any]) -> Markup:
    if not privacy.get("limit"):
        return Markup.escape("Chains, signatures and heads were checked with the keys of the manifest.")
    text = "Chains, signatures and heads were checked with the keys of the manifest. A full bar is the job’s ε = {}."
    return Markup(text).format(epsilon(privacy["limit"]))


def _fairness(fairness: Mapping[str, Any]) -> Markup:
    verdict, tolerance = fairness["verdict"], fairness.get("tolerance")
    if tolerance is None:
        return Markup.escape(f"No verdict: {fairness['reason']}.")
    if verdict == "PASS":
        return Markup("Every compared rate differs by at most {} between groups.").format(percent(tolerance))
    if verdict == "FAIL":
        return Markup("At least one rate differs by more than {} between groups.").format(percent(tolerance))
    open_ones = [m for m in fairness["metrics"].values() if m["tolerance"] and m["verdict"] == "INCONCLUSIVE"]
    needed = [m["n_to_decide"] for m in open_ones]
    if not needed or None in needed:
        return Markup("The evidence does not decide against a tolerance of {}.").format(percent(tolerance))
    text = "Too few records to decide against a tolerance of {}. About {} a group would decide every comparison."
    return Markup(text).format(percent(tolerance), count(max(needed)))


def _fairness_section(fairness: Mapping[str, Any]) -> Markup:
    if not fairness["metrics"]:
        return Markup.escape(f"Not audited: {fairness['reason']}.")
    groups = " and ".join(fairness["attributes"]) or "no attribute"
    return Markup(
        "Groups by {} are compared by counts over held-out records, summed under secure aggregation. A verdict needs "
        "the whole interval on one side of a tolerance that somebody declared."
    ).format(groups)


def _gaps(fairness: Mapping[str, Any]) -> Markup:
    if fairness.get("tolerance") is None:
        return Markup.escape("Bars are simultaneous 95 % intervals over all pairs. No tolerance was declared.")
    text = "Bars are simultaneous 95 % intervals over all pairs; the shaded zone is the tolerance of {}."
    return Markup(text).format(percent(fairness["tolerance"]))


def _learning(learning: Mapping[str, Any]) -> Markup:
    """One sentence that compares, without calling a difference significant."""
    accuracy, alone, pooled = (learning[name] for name in ("accuracy", "alone_accuracy", "pooled_accuracy"))
    if accuracy is None:
        if learning["released_accuracy"] is None:
            return Markup.escape("No accuracy was measured.")
        return Markup("Released counts give an accuracy of {}.").format(percent(learning["released_accuracy"]))
    text = Markup("Together {}").format(percent(accuracy))
    if alone is not None:
        text += Markup("; a site alone reaches {} on average").format(percent(alone))
    if pooled is not None:
        text += Markup("; all data in one place, without privacy, {}").format(percent(pooled))
    return text + Markup(".")


def _baselines(learning: Mapping[str, Any]) -> Markup:
    if learning["accuracy"] is None:
        return Markup.escape("What the released sums say about the model; nobody saw more.")
    return Markup.escape(
        "How the federated model compares with the two alternatives: every site by itself, and all data in one place."
    )

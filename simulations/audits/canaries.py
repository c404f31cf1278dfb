"""Does a run keep its promise where we look: a lower bound on epsilon from records that we put in by coins."""

from __future__ import annotations

from typing import Any

from common.errors import Code, Refusal
from common.parameters import Flat
from common.privacy.mechanism import MechanismPlan
from common.randomness import SystemEntropy, child_numpy
from simulations.audits import mechanisms, site_canaries
from simulations.audits.canary_scores import Evidence, by_loss, by_rounds
from simulations.audits.claimed import Claim, signed_claim, simulated_work, worst
from simulations.audits.games import Game, bound, play
from simulations.audits.history import history_of
from simulations.audits.models import flat_of
from simulations.audits.proven import judged, reason, shown
from simulations.audits.runs import Run
from simulations.rebuilt import rebuilt, scenario_of

WHITE_BOX = 2000  # canaries of the game with the mechanism alone
PARTS = 2  # games of one audit, which share its 5 % of error
METHOD = (
    "Each canary was in by a fair coin. The attacker knows every other record and the model of every round, says in or "
    "out of half of the canaries, and the bound is what so many right answers rule out (Steinke, Nasr and Jagielski "
    "2023), with 95 % confidence over all that was tried. PASS: the bound is at most the claim. FAIL: it is above. "
    "INCONCLUSIVE: nothing is claimed, or the audit could not have seen more than the claim even if it were broken."
)


def audit(run: Run) -> dict[str, Any]:
    """Every number of the canary audit, plain values ready for JSON; what does not exist is None.

    Two games are played: with the canaries of the run, and with canaries of our own against the mechanism that its
    sites signed for, on this machine. Of a run that protects whole sites: `site_canaries.audit`.
    Errors: Refusal DATA_INVALID for a run that was no simulation, that has no canaries, or that is not as written.
    """
    scenario = scenario_of(run.facts)
    if scenario.job.privacy.by_site:
        return site_canaries.audit(run)
    if scenario.world.canaries is None:
        raise Refusal(
            Code.DATA_INVALID,
            f"{run.folder} not audited by canaries",
            "none were planted in it",
            "Simulate it again with some: hushfed simulate run SCENARIO.toml --set world.canaries.count=400",
        )
    work, claim = simulated_work(run), signed_claim(run)
    history = history_of(run, work)
    evidence = Evidence(run, work, rebuilt(run.facts), history or (_final(run),))
    metrics = {**_of_run(evidence, claim, kept=history is not None), **_of_mechanism(work.training, len(run.rounds))}
    return {
        "verdict": worst(metrics, "epsilon_lower_bound").value,
        "reason": reason(metrics, "epsilon_lower_bound"),
        "claimed": claim.epsilon,
        "delta": claim.delta,
        "canaries": evidence.members.size,
        "members": int(evidence.members.sum()),
        "method": METHOD,
        "metrics": metrics,
    }


def _of_run(evidence: Evidence, claim: Claim, *, kept: bool) -> dict[str, Any]:
    """What the canaries in the run show, and what they would have shown without any noise."""
    attacks, bare = {"loss of the released model": by_loss(evidence)}, None
    if kept:
        seen = by_rounds(evidence, child_numpy(evidence.work.job.seed, "audit", "sampling"))
        attacks["steps of every round"] = seen.noisy
        bare = bound(Game(evidence.members, {"steps without noise": seen.bare}), claim.delta)
    found = bound(Game(evidence.members, attacks), claim.delta, 1 - 0.05 / PARTS)
    power = found.ceiling if bare is None else min(found.ceiling, bare.epsilon)
    metrics = {
        "epsilon_lower_bound": judged(found, claim.epsilon, power, claim.missing),
        "epsilon_lower_bound_gaussian": shown(found.gaussian, "if every release were a Gaussian one"),
    }
    if bare is not None:
        metrics["epsilon_without_noise"] = shown(
            bare.epsilon, "from the same canaries and steps, had no noise been added"
        )
    return metrics


def _of_mechanism(plan: MechanismPlan, rounds: int) -> dict[str, Any]:
    """What as many releases of the run's mechanism show of white-box canaries; nothing if it adds no noise."""
    if plan.mechanism == "none":
        return {}
    release = mechanisms.release_of(plan, WHITE_BOX, releases=rounds)
    found = bound(play(release, WHITE_BOX, SystemEntropy()), plan.delta, 1 - 0.05 / PARTS)
    claimed = mechanisms.claimed(mechanisms.sized(plan, WHITE_BOX), rounds)
    return {"mechanism_epsilon_lower_bound": judged(found, claimed, found.ceiling, "")}


def _final(run: Run) -> Flat:
    """The released model alone, where no history was kept."""
    return flat_of(run.model or b"", simulated_work(run).layout)

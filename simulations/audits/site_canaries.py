"""Does a run keep its promise to whole sites: a lower bound on epsilon from sites that we put in by coins."""

from __future__ import annotations

from typing import Any

from common.errors import Refusal
from common.privacy.mechanism import MechanismPlan
from common.randomness import SystemEntropy
from common.work import Work
from simulations.audits import mechanisms, site_games
from simulations.audits.claimed import Claim, signed_claim, simulated_work, worst
from simulations.audits.games import Game, bound, bound_by_rates, play
from simulations.audits.history import history_of
from simulations.audits.lower_bounds import Guesses, one_run
from simulations.audits.models import flat_of
from simulations.audits.proven import judged, reason, shown
from simulations.audits.runs import Run
from simulations.audits.site_scores import SiteEvidence, by_site_loss, by_site_rounds
from simulations.planted_sites import refuse_blurred
from simulations.rebuilt import rebuilt, scenario_of

RECORDS = 2000  # canaries of the game with the noise for single records
OWN = "epsilon_lower_bound"
MECHANISM, LOCAL = "mechanism_epsilon_lower_bound", "local_epsilon_lower_bound"
METHOD = (
    "Each canary was a whole site, in by a fair coin: if it is out it gives zeros, as a site that is not there. The "
    "attacker knows the records of every site and the model of every round, says in or out of half of the canaries, "
    "and the bound is what so many right answers rule out (Steinke, Nasr and Jagielski 2023, with sites as units). "
    "Against the mechanism alone each canary site has a coordinate of its own, and the bound is what its rates of "
    "hits and false alarms rule out (exact intervals). All with 95 % confidence over all that was tried. PASS: the "
    "bound is at most the claim. FAIL: it is above. INCONCLUSIVE: nothing is claimed, or the audit "
    "could not have seen more than the claim even if it were broken."
)


def audit(run: Run) -> dict[str, Any]:
    """Every number of the canary audit of a run that protects whole sites, plain values ready for JSON.

    Up to three games: with the canary sites of the run; with canary sites of our own against the mechanism that was
    signed for, played for as many rounds; and, where noise for single records lies inside, with records against that.
    Errors: Refusal DATA_INVALID for a run that was no simulation, or that is not as written.
    """
    work, claim = simulated_work(run), signed_claim(run)
    planted, rounds = scenario_of(run.facts).whole_canaries, len(run.rounds)
    games = 1 + planted + (work.local is not None)
    level = 1 - 0.05 / games
    metrics, canaries, members = {}, 0, 0
    if planted:
        evidence, kept = _evidence(run, work)
        canaries, members = evidence.members.size, int(evidence.members.sum())
        metrics = _of_run(evidence, claim, level, kept=kept)
    metrics |= _of_sites(work.training, rounds, level)
    if work.local is not None:
        metrics |= _of_records(work.local, -(-rounds // max(1, work.training.separation)), level)
    told = reason(metrics, OWN if planted else MECHANISM)
    return {
        "verdict": worst(metrics, OWN if planted else MECHANISM).value,
        "reason": told if planted else f"{told}; {_unplanted(work)}",
        "claimed": claim.epsilon,
        "delta": claim.delta,
        "unit": "site",
        "canaries": canaries,
        "members": members,
        "method": METHOD,
        "metrics": metrics,
    }


def _unplanted(work: Work) -> str:
    """Why only the mechanism was tried, and how the run itself could be."""
    try:
        refuse_blurred(work.job.privacy)
    except Refusal as refusal:
        return f"only its mechanism was tried, because canary sites cannot be planted in such a run: {refusal.why}"
    return (
        "no canary sites were planted in this run, so only its mechanism was tried; to try the run itself, simulate "
        "it again with --set world.canaries.count=100"
    )


def _evidence(run: Run, work: Work) -> tuple[SiteEvidence, bool]:
    """What an attacker has of this run, and whether that is the model of every round."""
    history = history_of(run, work)
    models = history or (flat_of(run.model or b"", work.layout),)
    return SiteEvidence(run, work, rebuilt(run.facts), models), history is not None


def _of_run(evidence: SiteEvidence, claim: Claim, level: float, *, kept: bool) -> dict[str, Any]:
    """What the canary sites in the run show, and what they would have shown without any noise."""
    bare = None
    if not kept:
        attacks = {"loss of the released model": by_site_loss(evidence)}
    else:
        seen = by_site_rounds(evidence)
        attacks = {"steps of every round": seen.noisy, "steps of every round, were the noise small": seen.hopeful}
        bare = bound(Game(evidence.members, {"steps without noise": seen.bare}), claim.delta)
    found = bound(Game(evidence.members, attacks), claim.delta, level)
    power = found.ceiling if bare is None else min(found.ceiling, bare.epsilon)
    advice = _advice(claim, len(attacks), level)
    metrics = {
        OWN: judged(found, claim.epsilon, power, claim.missing, advice),
        "epsilon_lower_bound_gaussian": shown(found.gaussian, "if every release were a Gaussian one"),
    }
    if bare is not None:
        metrics["epsilon_without_noise"] = shown(
            bare.epsilon, "from the same canary sites and steps, had no noise been added"
        )
    return metrics


def _advice(claim: Claim, attacks: int, level: float) -> str:
    """How many canary sites would show more than the claim, were there no noise; each pays once for delta."""
    for count in (50, 100, 200, 400, 800):
        perfect = Guesses(canaries=count, made=count // 2, right=count // 2)
        if one_run(perfect, claim.delta, 1 - (1 - level) / attacks) > (claim.epsilon or 0.0):
            return f"Plant {count} canary sites or more"
    return f"At a delta of {claim.delta:g} no number of canary sites could: simulate it with a smaller one"


def _of_sites(plan: MechanismPlan, rounds: int, level: float) -> dict[str, Any]:
    """What as many rounds of the run's mechanism show of white-box canary sites."""
    claimed = mechanisms.claimed(mechanisms.sized(plan, 0), rounds)
    canaries = site_games.enough(claimed)
    game = play(mechanisms.release_of(plan, canaries, releases=rounds), canaries, SystemEntropy())
    found = bound_by_rates(game, site_games.CUTS, plan.delta, level)
    return {MECHANISM: judged(found, claimed, found.ceiling, "")}


def _of_records(plan: MechanismPlan, turns: int, level: float) -> dict[str, Any]:
    """What a site's noise for single records shows of white-box canary records, in as many turns."""
    game = play(mechanisms.release_of(plan, RECORDS, releases=turns), RECORDS, SystemEntropy())
    found = bound(game, plan.delta, level)
    return {LOCAL: judged(found, mechanisms.claimed(plan, turns), found.ceiling, "")}

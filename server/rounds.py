"""One round as a story: cohort, order, gather, combine, step; and what is written down of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from common.errors import Code, Refusal
from common.job import Job
from common.orders import Task
from common.roster import names
from common.work import Work, metrics_of, update_of
from server.aggregation import Gathered
from server.checkpoints import State
from server.clock import SYSTEM, Clock
from server.cohort import FINAL, Eligible, cohort_of, wait_for
from server.evaluation import evaluation_of
from server.own_ledger import OwnLedger
from server.protocols import Sums
from server.site_level import due
from server.strategies.strategy import Strategy

MOST_TOLD = 8  # sites named in the end of a run
FADING = 0.8  # weight of a round's estimate in the next round's smoothed one
REMEMBERED = 256  # rounds behind which a weight is nothing beside a float's last digit

# An attempt that ended so may succeed when it is repeated.
REPEATED = frozenset({Code.E_TOO_FEW, Code.E_HELPER_LOST, Code.E_SUM_CHECK, Code.E_SET, Code.E_SHARE})


@dataclass(frozen=True)
class Table:
    """What the rounds of one run have in common.

    begin  puts on disk that an attempt is under way, so that one cut by a crash counts as spent
    save   puts a state on disk; no attempt is then under way
    own    accounts for the noise that the coordinator adds
    clock  tells the times of rounds, and how long sites are waited for      since  its time when the run began
    """

    job: Job
    work: Work
    strategy: Strategy
    aggregator: Sums
    present: Callable[[], Collection[int]]
    begin: Callable[[Task], None]
    save: Callable[[State], None]
    own: OwnLedger
    clock: Clock = SYSTEM
    since: float = 0.0


def play(table: Table, state: State) -> State:
    """The state after the next round: a new model, and its row in `rounds`.

    Errors: Refusal RUN_FAILED when the round has no sum and no attempt is left.
    """
    begun, number = table.clock.now(), len(state.rounds) + 1
    state, gathered, refusals = _gathered(table, state, "train", number)
    if gathered.failure:
        raise _no_sum(table, state, number, gathered.failure, refusals)
    if table.job.privacy.by_site:
        updates, state = table.own.updates(table.work, gathered.parts, state, number)
    else:
        updates = np.stack([update_of(table.work, part.sum, part.sites) for part in gathered.parts])
    memory, change = table.strategy.apply(state.memory, updates)
    loss, accuracy = metrics_of(table.work, gathered.sum, gathered.sites)
    state = replace(
        state, memory=dict(memory), parameters=(state.parameters.astype(np.float64) + change).astype(np.float32)
    )
    row = _row(table, state, number, gathered, refusals)
    row |= {"noisy_loss": loss, "noisy_accuracy": accuracy}
    row |= {"seconds": round(table.clock.now() - begun, 3), "elapsed": round(table.clock.now() - table.since, 3)}
    recent = [*state.rounds[-REMEMBERED:], row]
    row |= {name: _smoothed(recent, f"noisy_{name}") for name in ("loss", "accuracy")}
    return replace(state, rounds=(*state.rounds, row))


def evaluate(table: Table, state: State) -> State:
    """The state with the counts of the newest model.

    A run whose last counts cannot be had keeps its model: the evaluation then says which failure it ended with.
    """
    number = len(state.rounds)
    state, gathered, refusals = _gathered(table, state, "evaluate", number)
    if gathered.failure:
        return replace(state, evaluated=number, evaluation=None, evaluation_failure=gathered.failure.value)
    found = evaluation_of(table.work, gathered.sum, number, names(table.work.roster, gathered.sites))
    row = dict(state.rounds[-1])
    row["refusals"] = [*row["refusals"], *refusals]
    row["epsilon"] = _spent(table, state)
    if row["noisy_accuracy"] is None:
        row["accuracy"] = row["noisy_accuracy"] = found["accuracy"]
    rounds = (*state.rounds[:-1], row)
    return replace(state, evaluated=number, evaluation=found, evaluation_failure=None, rounds=rounds)


def _gathered(table: Table, state: State, task: Task, number: int) -> tuple[State, Gathered, list[dict[str, str]]]:
    """The sum of one round, however many attempts it takes within the job's spare ones; or the last failure.

    Whatever a site was charged is in the state, also when the attempt failed. Attempts are numbered by those that were
    spent before, so that no two of a run bind the same model.
    """
    refusals: list[dict[str, str]] = []
    least = _least(table, task)
    while (attempt := state.spent.get(task, 0)) <= table.work.spare(task):
        try:
            cohort = _cohort(table, state, (task, number, attempt))
        except Refusal as refusal:
            return state, Gathered((), refusal.code), refusals
        table.begin(task)
        gathered = table.aggregator.gather(task, number, attempt, state, cohort, least=least)
        state = _charged(state, gathered)
        refusals += [
            {"site": _name(table, site), "code": code.value} for site, code in sorted(gathered.notes.refused.items())
        ]
        if gathered.failure is None:
            return state, gathered, refusals
        state = replace(state, spent={**state.spent, task: state.spent.get(task, 0) + 1})
        table.save(state)
        if gathered.failure not in REPEATED or state.spent[task] > table.work.spare(task):
            return state, gathered, refusals
    return state, Gathered((), Code.RUN_FAILED), refusals


def _cohort(table: Table, state: State, place: tuple[Task, int, int]) -> tuple[int, ...]:
    """The sites of an attempt, once enough are here for all its sums. Errors: Refusal E_TOO_FEW.

    place  task, round and attempt
    """
    task, number, _ = place
    quorum = table.job.aggregation.quorum * table.work.groups(task)
    turn = due(table.work, number) if task == "train" else None

    def eligible() -> Eligible:
        return Eligible(table.present(), state.excluded, turn)

    worth_waiting = len(Eligible(table.work.roster.ids, state.excluded, turn)) >= quorum
    seconds = 3 * table.job.aggregation.deadline_seconds if worth_waiting else 0.0
    return cohort_of(table.work, wait_for(quorum, eligible, seconds, table.clock), place)


def _least(table: Table, task: Task) -> int:
    """Sums without which an attempt is worth nothing: enough groups to outvote liars."""
    return table.strategy.combine.least if task == "train" else 1


def _no_sum(table: Table, state: State, number: int, failure: Code, refusals: Sequence[dict[str, str]]) -> Refusal:
    """The end of a run, with what its sites said: the failure alone only tells that too few answered."""
    failed, spare = state.spent.get("train", 0), table.work.spare("train")
    said = {_name(table, site): code for site, code in state.excluded.items()} or {
        r["site"]: r["code"] for r in refusals
    }
    told = ", ".join(f"{site} {code}" for site, code in sorted(said.items())[:MOST_TOLD])
    more = f" and {len(said) - MOST_TOLD} more" if len(said) > MOST_TOLD else ""
    do = "The model of the last whole round is kept; more rounds need a new job"
    if len(table.work.roster.ids) - len(state.excluded) < table.job.aggregation.quorum:
        do = "Ask their keepers (hushfed site explain, site status); a run that is resumed asks them again"
    elif failed <= spare:
        do = "Start the sites that are missing and resume; the model of the last whole round is kept"
    return Refusal(
        Code.RUN_FAILED,
        f"Round {number} ended without a sum",
        f"the last failure was {failure}; failed attempts of the run: {failed}, where its budget affords {spare}"
        + (f"; sites said: {told}{more}" if told else ""),
        do,
    )


def _charged(state: State, gathered: Gathered) -> State:
    for site, (head, epsilon) in gathered.charges.items():
        state = state.charged(site, head, epsilon)
    final = {site: code.value for site, code in gathered.notes.refused.items() if code in FINAL}
    return replace(state, excluded={**state.excluded, **final})


def _smoothed(rows: Sequence[dict[str, Any]], name: str) -> float | None:
    """The recent noisy estimates averaged, newer ones weighing more: post-processing, which costs nothing."""
    known = [row[name] for row in reversed(rows) if row[name] is not None]
    weights = [FADING**age for age in range(len(known))]
    return sum(w * value for w, value in zip(weights, known, strict=True)) / sum(weights) if known else None


def _row(table: Table, state: State, number: int, gathered: Gathered, refusals: list[dict[str, str]]) -> dict[str, Any]:
    roster = table.work.roster
    groups = [names(roster, part.sites) for part in gathered.parts]
    return {
        "round": number,
        "sites": names(roster, gathered.sites),
        **({"groups": groups} if table.job.aggregation.groups > 1 else {}),
        "refusals": refusals,
        "epsilon": _spent(table, state),
        "bytes": {roster.site(site).name: size for site, size in sorted(gathered.notes.sizes.items())},
    }


def _spent(table: Table, state: State) -> dict[str, float | None]:
    """Epsilon by site as JSON shows it: nothing where there is no guarantee."""
    return {
        _name(table, site): round(value, 4) if math.isfinite(value) else None
        for site, value in sorted(state.epsilon.items())
    }


def _name(table: Table, site: int) -> str:
    return table.work.roster.site(site).name

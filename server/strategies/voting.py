"""From a rule to a vote: which rows count, how many liars are left among them, what comes before the rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import Code, Refusal
from server.strategies.strategy import Combine, Flat64, Rows64

LARGEST = float(np.finfo(np.float32).max)  # of a value that a model's parameter could take


@dataclass(frozen=True)
class Rule:
    """Rows to one, of which at most `liars` are anything at all.

    apply      rows [m, d], liars -> update [d]
    fewest     liars -> rows that the guarantee of `apply` needs
    most       rows beyond which it is not computed
    from_last  whether rows and update are differences from the last combined update
    votes      False where lies are bounded and not outvoted
    """

    apply: Callable[[Rows64, int], Flat64]
    fewest: Callable[[int], int]
    most: int = 64
    from_last: bool = False
    votes: bool = True


@dataclass(frozen=True)
class Stage:
    """What happens to the rows before the rule: as many lie afterwards as before, at most.

    apply   rows [m, d], liars -> rows [m', d]
    fewest  rows that the rule needs, liars -> rows that must go in
    """

    apply: Callable[[Rows64, int], Rows64]
    fewest: Callable[[int, int], int]


def majority(liars: int) -> int:
    """2 f + 1: the honest rows are more than the lying ones."""
    return 2 * liars + 1


def vote(rule: Rule, liars: int, stages: Sequence[Stage] = ()) -> Combine:
    """The rule over sums of groups, after the stages in their order; rows that are no numbers go before all else.

    Each lying site spoils one group at most, so `liars` bounds lying sites and lying rows alike.
    """

    def fewest(lying: int) -> int:
        rows = rule.fewest(lying)
        for stage in reversed(stages):
            rows = stage.fewest(rows, lying)
        return rows

    def apply(rows: Rows64, last: Flat64) -> Flat64:
        if len(rows) > rule.most:
            raise _too_many(len(rows), rule.most)
        kept, left = counted(rows, liars, fewest)
        for stage in stages:
            kept = stage.apply(kept, left)
        return last + rule.apply(kept - last, left) if rule.from_last else rule.apply(kept, left)

    return Combine("groups", liars, apply, fewest, rule.most, remembers=rule.from_last, votes=rule.votes)


def counted(rows: Rows64, liars: int, fewest: Callable[[int], int]) -> tuple[Rows64, int]:
    """The rows that a model could take, as float64, and how many liars to count on among them.

    A row with NaN, infinity or a value beyond float32 has no vote. If the others outvote all `liars`, they must. If
    they do not, rows without a vote count as lies told: an honest sum is finite, so as many liars fewer are left. So
    one NaN cannot stop a vote that would have been held without it.
    Errors: Refusal E_TOO_FEW.
    """
    rows = np.asarray(rows, np.float64)
    kept: Rows64 = rows[(np.abs(rows) <= LARGEST).all(axis=1)]  # a comparison with NaN is false
    lost = len(rows) - len(kept)
    for left in [liars, liars - lost] if lost <= liars else [liars]:
        if len(kept) >= fewest(left):
            return kept, left
    raise Refusal(
        Code.E_TOO_FEW,
        f"{len(kept)} groups not combined" + (f" ({lost} more were no numbers)" if lost else ""),
        f"{fewest(liars)} are needed to outvote {liars} lying sites",
        "Wait for more sites, or plan more groups",
    )


def _too_many(rows: int, most: int) -> Refusal:
    why = f"this rule looks at every subset of them, so {most} are the most"
    return Refusal(Code.UPDATE_INVALID, f"{rows} groups not combined", why, "Plan fewer groups, or another rule")

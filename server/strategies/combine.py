"""Many updates to one. Under secure aggregation only sums are known: one of all sites, or one of each group."""

from __future__ import annotations

import numpy as np

from common.errors import Code, Refusal
from common.parameters import checked
from server.strategies.strategy import Combine, Flat64, Rows64


def mean() -> Combine:
    """The update of the one sum that there is."""
    return Combine("sum", 0, _only)


def median(liars: int) -> Combine:
    """Coordinate-wise median of the groups' mean updates.

    Guarantee: every coordinate lies between two honest groups' means, as long as at most `liars` sites lie and
    2 * liars groups are fewer than all: each liar spoils one group at most.
    Source: Yin et al. 2018, option I, over groups as in bucketing (Karimireddy et al. 2022).
    """
    return Combine("groups", liars, lambda rows: np.median(_enough(rows, liars), axis=0))


def trimmed_mean(liars: int) -> Combine:
    """Coordinate-wise mean of the groups' mean updates without the `liars` largest and smallest.

    Guarantee: as `median`.  Source: Yin et al. 2018, option II.
    """

    def apply(rows: Rows64) -> Flat64:
        kept: Rows64 = np.sort(_enough(rows, liars), axis=0)[liars : len(rows) - liars]
        averaged: Flat64 = kept.mean(axis=0)
        return averaged

    return Combine("groups", liars, apply)


def _only(rows: Rows64) -> Flat64:
    """Errors: Refusal UPDATE_INVALID for several sums, or for one that is not finite."""
    if len(rows) != 1:
        why = "the mean of all sites is one sum, and sums of groups are for rules that vote"
        raise Refusal(Code.UPDATE_INVALID, f"{len(rows)} sums not combined", why, "Remove aggregation.groups")
    update: Flat64 = rows[0]
    checked(update, update.size)
    return update


def _enough(rows: Rows64, liars: int) -> Rows64:
    """The finite rows, if they outvote the liars. Errors: Refusal E_TOO_FEW."""
    finite: Rows64 = rows[np.isfinite(rows).all(axis=1)]
    if len(finite) <= 2 * liars:
        raise Refusal(
            Code.E_TOO_FEW,
            f"{len(finite)} groups not combined",
            f"{2 * liars + 1} are needed to outvote {liars} lying sites",
            "Wait for more sites, or plan more groups",
        )
    return finite

"""The mean: one sum of all sites, which nobody outvotes."""

from __future__ import annotations

from common.errors import Code, Refusal
from common.parameters import checked
from server.strategies.strategy import Combine, Flat64, Rows64


def mean() -> Combine:
    """The update of the one sum that there is."""
    return Combine("sum", 0, _only)


def _only(rows: Rows64, _: Flat64) -> Flat64:
    """Errors: Refusal UPDATE_INVALID for several sums, or for one that is not finite."""
    if len(rows) != 1:
        why = "the mean of all sites is one sum, and sums of groups are for rules that vote"
        raise Refusal(Code.UPDATE_INVALID, f"{len(rows)} sums not combined", why, "Remove aggregation.groups")
    update: Flat64 = rows[0]
    checked(update, update.size)
    return update

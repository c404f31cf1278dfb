"""Many updates to one. Under secure aggregation only their sum is known."""

from __future__ import annotations

from common.config import finite
from common.parameters import checked
from server.strategies.strategy import Combine, Flat64


def _mean(total: Flat64, divisor: float) -> Flat64:
    """total / divisor; the divisor is public (nominal batch, number of sites), never a count of private records.

    Errors: Refusal UPDATE_INVALID for a sum that is not finite, CONFIG_INVALID for a divisor that is not positive.
    """
    finite(divisor, "divisor of the sum", above=0.0)
    checked(total, total.size)
    return total / divisor


MEAN = Combine("sum", _mean)

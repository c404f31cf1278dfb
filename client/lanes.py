"""Values of a site as lanes that its plan covers: of the right length, within the bound, as integers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.privacy.clipped import Clipped
from common.privacy.mechanism import MechanismPlan
from common.randomness import Entropy
from common.secagg.rounding import round_within

LANE_LIMIT = 2**62  # beyond it an int64 could overflow when noise is added
TIGHT = 1 + 1e-9  # by how much a bound may miss the plan's for float rounding


def scaled(clipped: Clipped, plan: MechanismPlan) -> NDArray[np.int64]:
    """The integers of a sum that is within the plan's bound."""
    whole = np.rint(_bounded(clipped, plan) * plan.scale)
    if np.abs(whole).max(initial=0.0) > LANE_LIMIT:
        raise unfit("a lane is too large for an integer")
    return whole.astype(np.int64)


def rounded(clipped: Clipped, plan: MechanismPlan, entropy: Entropy) -> NDArray[np.int64]:
    """The integers of a rotated vector, of a norm that is at most the plan's sensitivity. Errors: UPDATE_INVALID."""
    return round_within(_bounded(clipped, plan) * plan.scale, plan.sensitivity, entropy)


def _bounded(clipped: Clipped, plan: MechanismPlan) -> NDArray[np.float64]:
    if not clipped.record_bound <= plan.record_bound * TIGHT:
        raise unfit(f"one {plan.unit} may add {clipped.record_bound:g}, the plan says {plan.record_bound:g}")
    return checked(clipped.total, plan)


def checked(value: NDArray[np.float64], plan: MechanismPlan) -> NDArray[np.float64]:
    """`value`, if it has the plan's lanes, in float64 and finite."""
    if value.shape != (plan.lanes,) or value.dtype != np.float64 or not np.isfinite(value).all():
        raise Refusal(
            Code.UPDATE_INVALID,
            "Update not released",
            f"the plan says {plan.lanes} finite lanes in float64",
            "Look for another model, or for missing values",
        )
    return value


def unfit(why: str) -> Refusal:
    """The refusal of a release that the plan it was charged under does not cover."""
    return Refusal(
        Code.POLICY_RELEASE, "Output not released", why, "Report this: the session asked for a wrong release"
    )

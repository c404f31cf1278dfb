"""A whole site as one vector of bounded length: what modes whose unit is the site release."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.privacy.clipped import Clipped
from common.privacy.mechanism import MechanismPlan
from common.secagg.rotation import Rotation
from common.secagg.rounding import clipped as shortened


def bounded(change: NDArray[np.float64], plan: MechanismPlan, clip: float) -> Clipped:
    """The site's update over the clip, of norm at most 1; and where the clip adapts, whether it was within it.

    change  float64 [d], in model units; one that is not finite counts as none at all: to refuse it would tell of it
    clip    in force in this round, from its order, where the clip adapts; 0 where the plan's holds
    Guarantee: at most the plan's `record_bound` in L2 norm, whatever `change` is.
    Errors: Refusal MESSAGE_INVALID for a clip where none is wanted, and the other way round.
    """
    if not math.isfinite(clip) or plan.adaptive is not (clip > 0):
        raise Refusal(Code.MESSAGE_INVALID, f"clip = {clip:g}", "the job's clip does not ask for it", "Follow the job")
    usable = change if np.isfinite(change).all() else np.zeros_like(change)
    short = shortened(usable, clip or plan.clip)
    lanes = short / (clip or plan.clip)
    if plan.adaptive:
        within = np.array_equal(short, usable)
        lanes = np.append(lanes, plan.lane_bound if within else -plan.lane_bound)
    return Clipped(lanes, plan.record_bound)


def turned(vector: Clipped, plan: MechanismPlan, seed: bytes) -> Clipped:
    """`vector` as `plan` sends it: rotated where its ring is small, so that no lane needs more room than others.

    seed  public, of the round      Guarantee: its norm stays. Errors: Refusal UPDATE_INVALID for another length.
    """
    if not plan.bits:
        return vector
    return Clipped(Rotation(plan.dimension).turn(vector.total, seed), vector.record_bound)

"""The mechanisms that protect whole sites, run on canary sites: each has a coordinate of its own, or is absent.

What runs is the program of sites and coordinator: their clip, their noise, the noise that cancels over rounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from client.site_level import bounded, turned
from common.privacy.correlated import Vectors, coefficients
from common.privacy.mechanism import MechanismPlan
from common.privacy.noise import integer_noise
from common.secagg.rotation import Rotation
from common.secagg.rounding import round_within
from server.site_level import central_noise
from simulations.audits.games import Coins, Scores, Source

AT_ONCE = 1000  # canary sites in one sum
FEW = 10  # the same in a small ring, which has no room for more than a job's own sites; if no more share the noise
CUTS = {"half the clip": 0.5, "the clip": 1.0, "ten times the clip": 10.0}  # above which a site is taken to be in
LEAST, MOST = 2000, 50_000  # canaries of a game
EACH = 12  # canaries for each of the e^epsilon that it takes to see an alarm that a claim still allows
LOUD = 1e3  # how many times the clip a canary's update is: only clipping makes it small


def enough(epsilon: float) -> int:
    """How many canaries a claim takes, so that more than it could be seen if the noise were missing."""
    return round(min(MOST, max(LEAST, EACH * math.exp(min(epsilon, 50.0)))))


def sized(plan: MechanismPlan) -> MechanismPlan:
    """`plan` for one coordinate a site and nothing else, on fresh noise of the same multiplier."""
    alone = replace(plan, record_bound=1.0, lane_bound=0.0, adaptive=False, layered=False)
    return replace(alone, dimension=max(plan.honest, FEW) if plan.bits else AT_ONCE, noise="system")


def play(plan: MechanismPlan, members: Coins, source: Source, rounds: int) -> Scores:
    """What an attacker makes of the sums of so many rounds: around 1 for a canary that was in, around 0 for others.

    members  sites, of which the dimension of `plan` are in one sum; a site that is absent gives zeros. In M4 so many
             as the plan counts on add their noise, canaries or not
    In M5 they have their turn in the first round, and again `separation` rounds later; no other site gives anything.
    """
    width = plan.dimension
    padded = np.append(members, np.zeros(-members.size % width, bool)).reshape(-1, width)
    return np.concatenate([_course(plan, part, source, rounds) for part in padded])[: members.size]


def _course(plan: MechanismPlan, members: Coins, source: Source, rounds: int) -> Scores:
    """The rounds of one set of sites."""
    turns = [float(number % max(1, plan.separation) == 0) for number in range(rounds)]
    seed, past, sums = source().bytes(32), np.zeros((0, plan.dimension)), []
    given = np.zeros(plan.lanes) if plan.bits else _given(plan, members, seed, source)
    for turn in turns:
        if plan.central:
            noise, past = central_noise(plan, source(), past)
            sums.append(given * turn / plan.scale + noise)
        else:
            total = sum((integer_noise(plan, source()) for _ in range(plan.honest)), np.zeros(plan.lanes))
            sums.append(
                _opened(plan, total + _given(plan, members, seed, source) if plan.bits else total + given, seed)
            )
    most = _best([np.array([turn]) for turn in turns], plan.separation)
    return _best(sums, plan.separation) / most


def _given(plan: MechanismPlan, members: Coins, seed: bytes, source: Source) -> Vectors:
    """What all sites send together before noise, in integers: rotated and rounded at random where the ring is small."""
    total = np.zeros(plan.lanes)
    for place, member in enumerate(members):
        change = np.zeros(plan.dimension)
        change[place] = LOUD * plan.clip * bool(member)
        vector = turned(bounded(change, plan, 0.0), plan, seed).total * plan.scale
        total += round_within(vector, plan.sensitivity, source()) if plan.bits else np.rint(vector)
    return total


def _opened(plan: MechanismPlan, total: Vectors, seed: bytes) -> Vectors:
    """A sum in units of the clip; one of a small ring may have wrapped, and is turned back."""
    if not plan.bits:
        return total / plan.scale
    half = 2.0 ** (plan.bits - 1)
    return Rotation(plan.dimension).back(np.mod(total + half, 2 * half) - half, seed) / plan.scale


def _best(sums: Sequence[Vectors], separation: int) -> Vectors:
    """The sum over turns of what a vector given in each of them leaves, weighed so that noise hides it least."""
    white, weights = whitened(sums, separation), coefficients(max(1, separation))
    turns = range(0, len(white), max(1, separation))
    seen = [c * white[turn + on] for turn in turns for on, c in enumerate(weights) if turn + on < len(white)]
    found: Vectors = np.sum(seen, axis=0)
    return found


def whitened(rounds: Sequence[Vectors], separation: int) -> list[Vectors]:
    """C times what was seen in each round: the noise in the result is independent over rounds, and no larger."""
    weights = coefficients(max(1, separation))
    return [
        np.sum([c * rounds[number - back] for back, c in enumerate(weights) if back <= number], axis=0)
        for number in range(len(rounds))
    ]

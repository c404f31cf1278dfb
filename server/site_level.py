"""Sums of sites' updates in modes whose unit is the site: the coordinator's noise, the mean, and the next clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from common.privacy.correlated import next_noise
from common.privacy.mechanism import MechanismPlan
from common.privacy.noise import integer_noise, normals
from common.randomness import Entropy, child_numpy, noise_source
from common.secagg.distributed import DistributedCodec
from common.work import Work
from server.aggregation import Part
from server.checkpoints import State

PACE = 0.2  # how fast the clip follows: the logarithm moves by this times the share that is off
REACH = 1e6  # factor by which the clip may leave its start, so that it stays a number


def due(work: Work, round_number: int) -> frozenset[int] | None:
    """Sites whose turn a round is, in mode M5: one of `separation` lots, by the job's seed. None: everybody's."""
    lots = work.training.separation
    if not lots:
        return None
    shuffled = child_numpy(work.job.seed, "turns").permutation(work.roster.ids)
    return frozenset(int(site) for site in shuffled[round_number % lots :: lots])


def site_updates(work: Work, parts: Sequence[Part], state: State, number: int) -> tuple[NDArray[np.float64], State]:
    """The mean update of each part's sites, float64 [parts, d] in model units; and the state that goes with them.

    Where the coordinator adds the noise, it is in them; the exact sum is in nothing that is kept.
    """
    plan, size, clip = work.training, work.layout.size, state.clip or work.training.clip
    entropy = noise_source(work.job.privacy.noise, work.job.seed, "coordinator", number)
    past = state.noise.reshape(-1, plan.dimension)
    rows, within, sites = [], 0.0, 0
    for part in parts:
        noise, past = central_noise(plan, entropy, past) if plan.central else (np.zeros(plan.dimension), past)
        lanes = _opened(work, part, number) + noise
        rows.append(clip * lanes[:size] / len(part.sites))
        within, sites = within + float(lanes[size:].sum()), sites + len(part.sites)
    last = number == work.job.rounds  # who has the noise can take it off again
    state = replace(state, noise=past[:0] if last else past)
    if plan.adaptive:
        share = 0.5 + within / (2 * plan.lane_bound * sites)
        state = replace(state, clip=followed(clip, share, work))
    return np.stack(rows), state


def _opened(work: Work, part: Part, number: int) -> NDArray[np.float64]:
    """A sum in units of the clip, float64 [dimension]: turned back, where the job's sites rotate their updates."""
    codec = work.codec("train")
    if isinstance(codec, DistributedCodec):
        return codec.total(part.sum, work.turn(number))
    return part.sum.values / work.training.scale


def central_noise(
    plan: MechanismPlan, entropy: Entropy, past: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The coordinator's noise for one sum in units of the clip, and what the next round must remember of it."""
    if not plan.separation:
        return integer_noise(plan, entropy) / plan.scale, past
    normal = normals(plan.dimension, entropy) * (plan.sigma / plan.scale)
    return next_noise(normal, past, plan.separation)


def followed(clip: float, share: float, work: Work) -> float:
    """The next clip. share: noisy share of updates within this one. Source: Andrew et al. 2021, algorithm 1."""
    wanted = work.job.privacy.quantile or 0.0
    moved = clip * math.exp(-PACE * (min(max(share, 0.0), 1.0) - wanted))
    start = work.training.clip
    return min(max(moved, start / REACH), start * REACH)

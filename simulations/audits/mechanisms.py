"""The mechanisms that protect records, run as they are on canaries that only a white-box attacker could plant.

Every canary is a record whose gradient lies along a coordinate of its own and is longer than the clip (a Dirac
gradient; Nasr et al. 2023). So a release shows each canary by itself: its coordinate holds the clip or nothing, and
noise.
What runs is the program of the sites: its sampler, its clipping engine, its noise, its guard.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from client.craft import unpaid
from client.guard import Guard
from client.limits import Limit
from client.private_step import train_privately
from client.trainer import Workbench, gradient_lanes
from common.data import Records
from common.errors import Code, Refusal
from common.identity import Signer
from common.learning.plan import TrainingPlan
from common.privacy.accounting import REPORT, total_epsilon
from common.privacy.clipped import Clipped, Counted
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.distributed import SiteMechanism
from common.privacy.entries import Facts
from common.privacy.ledger import Owner, open_ledger
from common.privacy.mechanism import MechanismPlan
from common.privacy.sampler import poisson
from common.privacy.units import Unit
from common.randomness import Entropy, SystemEntropy
from common.secagg.masks import reduce
from simulations.audits import site_games
from simulations.audits.games import Coins, Release, Scores, Source

LOUD = 1e3  # how many times the clip a canary's gradient is: only clipping makes it small
STILL = 1e-6  # rate of learning at which the model stays where it is, and every step sees the same gradients
_WHO = Facts(run="audit", round=1, order="audit")


def claimed(plan: MechanismPlan, releases: int = 1) -> float:
    """Epsilon of `plan` after so many rounds, as the accountant reports it: of a site that takes all its turns."""
    turns = -(-releases // max(1, plan.separation))
    return total_epsilon([plan.charge(plan.steps * turns)], plan.delta, REPORT)


def sized(plan: MechanismPlan, canaries: int) -> MechanismPlan:
    """`plan` for so many coordinates and nothing else in them: the mechanism to play with, on fresh noise.

    Errors: Refusal JOB_INVALID for a plan that adds no noise or promises nothing.
    """
    if plan.mechanism == "none" or not plan.noise_multiplier > 0:
        raise Refusal(
            Code.JOB_INVALID, "Mechanism not audited", "it adds no noise and claims nothing", "Audit a private run"
        )
    if plan.purpose == "counts":
        return replace(plan, dimension=canaries, noise="system")
    if plan.unit is Unit.SITE:
        return site_games.sized(plan)
    quiet = replace(plan, record_bound=plan.clip, lane_bound=0.0, loss_bound=0.0)
    return replace(quiet, dimension=canaries, noise="system")


def release_of(plan: MechanismPlan, canaries: int, source: Source = SystemEntropy, *, releases: int = 1) -> Release:
    """So many releases of `plan` as a game: coins to what their sums together say of each canary, in clips.

    Where the unit is a site, canaries are sites, `releases` rounds, and what they say is scaled as it may be.
    source  where sampling and noise come from; system entropy wherever something is to be learned of the mechanism
    Errors: Refusal JOB_INVALID.
    """
    asked = sized(plan, canaries)
    if asked.unit is Unit.SITE and asked.purpose == "train":
        return lambda members: site_games.play(asked, members, source, releases)
    once = _counted if plan.purpose == "counts" else _local if plan.mode == "M1" else _summed
    return lambda members: np.sum([once(asked, members, source) for _ in range(releases)], axis=0)


def site_release(mechanism: SiteMechanism, source: Source = SystemEntropy) -> Release:
    """One release of a mechanism whose unit is a site, as a game in which every site is a canary or absent.

    A sum holds `quorum` sites, so canaries are spread over as many sums as it takes; neighbouring data differ in one
    of them. A site that is absent gives zeros and its noise, as the mechanism's relation says.
    Errors: Refusal JOB_INVALID where the last sum would have fewer sites, or a site no coordinate of its own.
    """

    def play(members: Coins) -> Scores:
        if members.size % mechanism.quorum or mechanism.dimension < mechanism.quorum:
            why = f"sums of {mechanism.quorum} sites need a multiple of it, and a coordinate for each site"
            raise Refusal(Code.JOB_INVALID, f"{members.size} canaries not played", why, "Change their number")
        return np.concatenate([_site_sum(mechanism, part, source) for part in members.reshape(-1, mechanism.quorum)])

    return play


def _local(plan: MechanismPlan, members: Coins, source: Source) -> Scores:
    """Mode M1: the update of a site's private local steps, which add up to one sum."""
    records, bench = _dirac(plan, members)
    update = train_privately(bench, records, plan, 1.0, sampling=source(), noise=source(), executed=unpaid)
    return -update.value / (STILL * plan.clip)


def _summed(plan: MechanismPlan, members: Coins, source: Source) -> Scores:
    """Mode M2: the sum of what all sites release, each with its share of the noise, through their guards."""
    total = np.zeros(plan.dimension)
    for site in range(plan.honest):
        here = members & (np.arange(members.size) % plan.honest == site)
        records, bench = _dirac(plan, here)
        batch = records.take(poisson(len(records), plan.sampling_rate, source()))
        total += _guarded(plan, gradient_lanes(bench, batch, plan), source())
    return total / (plan.scale * plan.clip)


def _counted(plan: MechanismPlan, members: Coins, source: Source) -> Scores:
    """Counts in which every canary has a cell of its own, summed over the sites that share the noise."""
    total = np.zeros(plan.dimension)
    for site in range(plan.honest):
        here = members & (np.arange(members.size) % plan.honest == site)
        total += _guarded(plan, Counted(here.astype(np.int64)), source())
    return total


def _site_sum(mechanism: SiteMechanism, members: Coins, source: Source) -> Scores:
    codec, seed = mechanism.codec, source().bytes(32)
    total = codec.ring.zeros()
    for place, member in enumerate(members):
        vector = np.zeros(mechanism.dimension)
        vector[place] = LOUD * mechanism.clip * bool(member)
        total += codec.encode(vector, seed, source()).lanes
    opened = codec.open_sum(reduce(codec.ring, total), members.size)
    return codec.total(opened, seed)[: members.size] / mechanism.clip


def _guarded(plan: MechanismPlan, value: Clipped | Counted, noise: Entropy) -> Scores:
    """What a guard with a ledger of its own lets out."""
    with (
        tempfile.TemporaryDirectory(prefix="hushfed-audit-") as folder,
        open_ledger(Path(folder) / "ledger.sqlite", Owner(1, "0" * 32), Signer.generate()) as ledger,
    ):
        guard = Guard(ledger, Limit(1e6, plan.delta))
        paid = guard.reserve(plan, _WHO)
        if isinstance(value, Counted):
            return guard.release_counts(paid, value, noise).lanes.astype(np.float64)
        return guard.release_sum(paid, value, noise).lanes.astype(np.float64)


def _dirac(plan: MechanismPlan, members: Coins) -> tuple[Records, Workbench]:
    """The canaries that are in as records, and a model for which each has a gradient along its own coordinate.

    The model is one weight a canary, all zero, so sigmoid(0) - 0 = 1/2 is every record's pull on its own weight.
    """
    places = np.flatnonzero(members)
    inputs = torch.zeros(places.size, members.size)
    inputs[torch.arange(places.size), torch.from_numpy(places)] = 2 * LOUD * plan.clip
    nothing = torch.zeros(places.size, dtype=torch.int64)
    ids = tuple(int(place).to_bytes(16, "big") for place in places)
    model = nn.Linear(members.size, 1, bias=False)
    nn.init.zeros_(model.weight)
    training = TrainingPlan(learning_rate=STILL, local_steps=plan.steps)
    bench = Workbench(model, training.task(2), training, torch.device("cpu"), OpacusEngine())
    return Records(inputs, nothing, nothing, ids), bench

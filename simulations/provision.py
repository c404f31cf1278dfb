"""A scenario's world as files: every site's records, settings and policy, ready for processes or for one process."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import Code, Refusal
from common.randomness import child_numpy
from common.secagg.rules import Rules
from deploy.provision import FederationFolder, SitePlan, provision
from simulations.datasets import Dataset, dataset, groups_of, homes_of, write_rows
from simulations.partitioners import partition
from simulations.planted_sites import plant_sites, refuse_blurred
from simulations.planting import Planting, plant
from simulations.resampling import Rows
from simulations.scenario import Scenario


def settle(scenario: Scenario, root: Path) -> FederationFolder:
    """Set up the federation of `scenario` under the new or empty folder `root`.

    Errors: Refusal FILE_EXISTS, and those of the data set, the deal and the manifest.
    """
    plot = plot_of(scenario)
    with tempfile.TemporaryDirectory() as folder:
        plans = []
        for site, name in enumerate(plot.names):
            written = write_rows(plot.planting.data, plot.held(site), Path(folder) / name)
            plans.append(_plan(scenario, name, written, plot.expected(site)))
        return provision(root, scenario.job.name, plans, rules_of(scenario, len(plot.names)))


@dataclass(frozen=True)
class Plot:
    """Which rows of the data set, and which canaries, every site of a world holds; a scenario alone fixes it.

    names     of the sites, canary sites last      dealt  rows that each has in any case
    planting  the data set with its canaries
    """

    names: tuple[str, ...]
    dealt: Sequence[Rows]
    planting: Planting

    def held(self, site: int) -> Rows:
        """Rows of the site's file: what it has in any case, then the canaries that are in."""
        return np.concatenate([self.dealt[site], self.planting.added(site)])

    def expected(self, site: int) -> int:
        """How many records the site has, its canaries counted by their chance: coins are nobody's business."""
        return len(self.dealt[site]) + len(self.planting.rows[site]) // 2


def plot_of(scenario: Scenario) -> Plot:
    """The plot of a scenario. Errors: Refusal of the data set and the deal."""
    data, world = dataset(scenario.job.dataset), scenario.world
    dealt = deal(scenario, data)
    names = world.site_names(len(dealt) + (world.canaries.count if scenario.whole_canaries and world.canaries else 0))
    keys = [split_key(scenario, name) for name in names]
    if not scenario.whole_canaries:
        return Plot(names, dealt, plant(data, world.canaries, world.seed, keys, world.holdout))
    refuse_blurred(scenario.job.privacy)
    planting, held = plant_sites(data, dealt, keys, world.seed, world.holdout)
    return Plot(names, held, planting)


def deal(scenario: Scenario, data: Dataset) -> Sequence[Rows]:
    """Which rows each site holds. Errors: Refusal CONFIG_INVALID for a deal that these data do not allow."""
    plan = scenario.world.partition
    if plan.kind in ("label", "classes") and (absent := set(range(data.schema.classes)) - set(data.labels.tolist())):
        why = f"nobody has a record of class {data.schema.label.names[min(absent)]!r}"
        raise Refusal(Code.CONFIG_INVALID, f"{data.name} not dealt by {plan.kind!r}", why, "Choose another partition")
    homes = None
    if plan.column:
        homes = groups_of(data, plan.column) if plan.kind == "group" else homes_of(data, plan.column)
    return partition(plan, data.labels, scenario.world.seed_of("deal"), homes)


def rules_of(scenario: Scenario, sites: int) -> Rules:
    """The rules that the governance of such a federation would sign.

    Sets of consecutive rounds may differ in a single site: noise covers that difference, and with a handful of
    sites a rule against it would end the run at the first site that is late.
    """
    quorum = scenario.job.aggregation.quorum
    unmaskers, lost = scenario.world.unmasking(sites)
    corrupt = scenario.world.corruptible(sites)
    if scenario.job.aggregation.protocol == "bonawitz":
        corrupt = max(0, min(corrupt, 2 * quorum - sites - 1))  # as many as leave the quorum enough
    return Rules(
        unmaskers_min=unmaskers,
        quorum_min=quorum,
        orgs_min=quorum,
        sites_max=sites,
        corrupt_max=corrupt,
        overlap_min=0,
        lost_max=lost,
        shares_min=unmaskers - lost if lost else 0,
        rounds_max=1024,
        masks_each=scenario.world.masks_each,
    )


def _plan(scenario: Scenario, name: str, written: tuple[Path, str], rows: int) -> SitePlan:
    """The plan of one site. written: the file of its records, and the kind of source that reads it."""
    replay = scenario.job.privacy.noise == "replay"
    return SitePlan(
        name=name,
        org=name,
        nominal_records=nominal_records(rows, scenario.world.holdout),
        data=written[0],
        dataset=scenario.job.dataset,
        holdout=scenario.world.holdout,
        source={"kind": written[1]},
        policy=policy_of(scenario),
        split_key=split_key(scenario, name),
        noise_seed=noise_seed(scenario, name) if replay else None,
    )


def policy_of(scenario: Scenario) -> Mapping[str, Any]:
    """A policy that allows this job and nothing beyond it."""
    job, minimum = scenario.job, 0 if scenario.whole_canaries else scenario.world.partition.minimum
    quorum = job.aggregation.quorum
    most = max(job.privacy.epsilons, default=0.0)
    return {
        "tasks": {"allow": ["offer", "train", "evaluate", "ledger"]},
        "models": {"allow": [job.model.name], "max_parameters": 1_000_000},
        "privacy": {
            "modes": [job.privacy.mode],
            "max_epsilon": most,
            "delta": job.privacy.delta or 0.0,
            "colluding": job.privacy.colluding or 0,
            "allow_replay": job.privacy.noise == "replay",
        },
        # with masks for some unmasking sites only, sums that a lying coordinator opens hold half the quorum at least
        "aggregation": {
            "quorum": -(-quorum // 2) if scenario.world.masks_each else quorum,
            "protocols": [job.aggregation.protocol],
        },
        "data": {"datasets": [job.dataset], "columns": list(job.columns), "min_records": min(20, minimum // 2)},
    }


def nominal_records(records: int, holdout: float) -> int:
    """The public number of training records that a site of so many records states: rounded to tens."""
    return max(10, 10 * round(records * (1 - holdout) / 10))


def split_key(scenario: Scenario, name: str) -> bytes:
    """Which records a site holds out: by seed here, so that a world can be built again; secret at a real site.

    Sites that draw from one pool hold out the same records of it, so that no record is trained on at one and tested
    at another.
    """
    place = "" if scenario.world.partition.kind == "resampled" else name
    return child_numpy(scenario.world.seed_of("data"), "split", place).bytes(32)


def noise_seed(scenario: Scenario, name: str) -> int:
    """Where noise is replayed: a site's own."""
    return int(child_numpy(scenario.world.seed_of("noise"), "noise", name).integers(2**53))

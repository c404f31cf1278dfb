"""The world of a finished run built again from what the run wrote down: which records were in, and which were not."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.sources.catalogue import read_records
from client.sources.source import Source
from common.config import load, plain
from common.data import Records, split
from common.errors import Code, Refusal
from common.job import Job
from simulations.backstage import digest_of
from simulations.datasets import write_rows
from simulations.provision import Plot, plot_of, split_key
from simulations.scenario import Scenario, World

_NO_WORLD = "only a simulated world knows which records were in, and this run tells of none"


@dataclass(frozen=True, repr=False, eq=False)
class SiteRecords:
    """What a site of a simulated world holds. Never printed.

    train, holdout  as its agent split them, canaries that are in included
    canaries        all that were made up for the site, in or out      members  bool, which are in
    """

    name: str
    train: Records
    holdout: Records
    canaries: Records
    members: NDArray[np.bool_]

    @property
    def real(self) -> Records:
        """Training records that are no canary."""
        planted = set(self.canaries.ids)
        return self.train.take([row for row, one in enumerate(self.train.ids) if one not in planted])


def told(scenario: Scenario, digest: str) -> dict[str, Any]:
    """The entry `world` of run.json: the settings that give this world again, and a digest of its records."""
    return {"settings": plain(scenario.world), "records": digest}


def scenario_of(facts: Mapping[str, Any]) -> Scenario:
    """The scenario that a run's run.json tells of.

    Errors: Refusal DATA_INVALID for a run that was no simulation, CONFIG_INVALID for settings of another version.
    """
    world = facts.get("world")
    if not isinstance(world, dict) or not isinstance(world.get("settings"), dict):
        raise Refusal(
            Code.DATA_INVALID,
            "Run not attacked",
            _NO_WORLD,
            "Audit a run of `hushfed simulate run` or `hushfed demo` of this version",
        )
    return Scenario(world=load(World, world["settings"], "world"), job=load(Job, facts["job"], "job"))


def rebuilt(facts: Mapping[str, Any]) -> tuple[SiteRecords, ...]:
    """The records of every site of the run, read as its agent read them.

    Errors: Refusal as `scenario_of`; FILE_MISSING for data that are not at hand; DATA_INVALID if they are not those
    of the run.
    """
    scenario = scenario_of(facts)
    if scenario.world.sums == "exact":
        why = "its sums were formed in the open, and its sites have no files"
        raise Refusal(Code.DATA_INVALID, "Run not attacked", why, 'Simulate with world.sums = "masked"')
    if scenario.world.adversaries is not None:
        why = "some of its sites lied, and did not train as the records of a site say"
        raise Refusal(Code.DATA_INVALID, "Run not attacked", why, "Simulate it without [world.adversaries]")
    plot = plot_of(scenario)
    with tempfile.TemporaryDirectory(prefix="hushfed-world-") as folder:
        sites = range(len(plot.names))
        files = [write_rows(plot.planting.data, plot.held(site), Path(folder) / str(site)) for site in sites]
        if digest_of([path.read_bytes() for path, _ in files]) != facts["world"].get("records"):
            why = "data set or software differ from those of the run"
            raise Refusal(Code.DATA_INVALID, "World not built again", why, "Use the version that made the run")
        return tuple(_site(scenario, plot, site, written) for site, written in enumerate(files))


def _site(scenario: Scenario, plot: Plot, site: int, written: tuple[Path, str]) -> SiteRecords:
    """written: the file of the site's records, and the kind of source that reads it."""
    job, name, (path, kind) = scenario.job, plot.names[site], written
    held = read_records(Source(path=path.name, kind=kind), job.data, path.parent).records
    train, holdout = split(held, split_key(scenario, name), scenario.world.holdout)
    canaries, members = held.take([]), plot.planting.members[site]
    if members.size:
        made, kind = write_rows(plot.planting.data, plot.planting.rows[site], path.parent / "canaries")
        canaries = read_records(Source(path=made.name, kind=kind), job.data, made.parent).records
    return SiteRecords(name, train, holdout, canaries, members)

"""scenario.toml: a world of sites by seed, and the job they are asked to do."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from common.config import finite, load, naming, plain, read_table
from common.data import Schema
from common.errors import Code, Refusal
from common.job import Job
from simulations.adversaries.settings import Adversaries
from simulations.datasets import dataset
from simulations.faults import NO_FAULTS, FaultSettings
from simulations.naming import site_name, site_names
from simulations.partitioners import Partition
from simulations.planting import CanarySettings

EXAMPLES = ("clinics", "digits", "digits-crowd", "digits-liars", "digits-local")


@dataclass(frozen=True, kw_only=True)
class WorldSeeds:
    """Seeds of parts of a world, so that worlds may differ in one of them alone. Left out, a part follows `world.seed`.

    data   which records a site holds out        deal  which site holds which record
    noise  of the sites where it is replayed; no other noise has a seed
    """

    data: int | None = None
    deal: int | None = None
    noise: int | None = None


@dataclass(frozen=True, kw_only=True)
class World:
    """The sites: a data set dealt to them by `partition`. `seed` fixes the faults, and all that `seeds` leaves out.

    sums       "masked": every site has its keys, its ledger and its policy, and the coordinator sees what secure
               aggregation shows; "exact": the same sums without masks, orders, ledgers and rounding, for populations
               of any size. What a run of the second kind would cost is stated as planned, for nothing is charged
    unmaskers  sites that unmask a sum together; privacy holds while one of them is honest and not recovered
    lost_max   those of them that may be lost in a round and be recovered by the others, who hold shares of their keys;
               it lowers how many may be corrupt
               Left out, both follow from the number of sites: up to ten sites all but one unmask, at most five, beyond
               that eight; five or more of them can spare one
    masks_each   unmasking sites that a report is masked for, 0: all of them. Otherwise the first `unmaskers` sites
                 unmask in every session, and lots that governance draws say who masks for whom
    corrupt_max  unmasking sites that may be corrupt. Left out, as many as the trust condition allows; with masks_each
                 one, since every further one makes smaller sums possible
    holdout  share of every site's records kept for evaluation      names  what the sites are called: clinic-a, …
    canaries records that are made up for `hushfed audit canaries`, or whole sites where a job protects those; none if
             left out
    adversaries  sites that lie; none if left out. Not together with canaries, which tell of honest sites
    """

    holdout: float
    seed: int
    partition: Partition
    sums: Literal["masked", "exact"] = "masked"
    unmaskers: int | None = None
    lost_max: int | None = None
    masks_each: int = 0
    corrupt_max: int | None = None
    faults: FaultSettings = NO_FAULTS
    names: str = "site"
    canaries: CanarySettings | None = None
    adversaries: Adversaries | None = None
    seeds: WorldSeeds = WorldSeeds()

    def __post_init__(self) -> None:
        finite(self.holdout, "world.holdout", above=0, at_most=0.9)
        if self.canaries and self.adversaries:
            why = "what canaries prove holds for sites that do as they are told"
            raise Refusal(Code.CONFIG_INVALID, "world.canaries with world.adversaries", why, "Leave one of them out")

    def seed_of(self, part: Literal["data", "deal", "noise"]) -> int:
        """The seed of a part of the world."""
        own: int | None = getattr(self.seeds, part)
        return self.seed if own is None else own

    def unmasking(self, sites: int) -> tuple[int, int]:
        """Unmasking sites of a session among so many sites, and how many of them may be lost in a round."""
        unmaskers = self.unmaskers or (max(2, min(sites - 1, 5)) if sites <= 10 else 8)
        return unmaskers, (int(unmaskers >= 5) if self.lost_max is None else self.lost_max)

    def corruptible(self, sites: int) -> int:
        """How many of the unmasking sites may be corrupt."""
        unmaskers, lost = self.unmasking(sites)
        most = max(0, unmaskers - 2 * lost - 1)
        return (min(1, most) if self.masks_each else most) if self.corrupt_max is None else self.corrupt_max

    def site_name(self, place: int, count: int) -> str:
        """clinic-a, clinic-b, … by place from 0 on; numbers where the alphabet does not suffice for all."""
        return site_name(self.names, place, count)

    def site_names(self, count: int) -> tuple[str, ...]:
        """The names of so many sites."""
        return site_names(self.names, count)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A world and a job."""

    world: World
    job: Job

    def __post_init__(self) -> None:
        if self.world.adversaries and self.world.adversaries.records:
            self.world.adversaries.records.poisoning(self.job.data)

    @property
    def whole_canaries(self) -> bool:
        """Whether its canaries are whole sites: the job protects those."""
        return self.world.canaries is not None and self.job.privacy.by_site

    def with_sizes(self, *, sites: int | None, rounds: int | None, epsilon: float | None) -> Scenario:
        """The scenario with another number of sites or rounds, or another budget.

        Of three sites or more one may be missing from a sum; who unmasks follows from the number of sites. More sites
        hold fewer records each, so what every site must hold falls with their number.
        """
        world, job = self.world, replace(self.job, rounds=self.job.rounds if rounds is None else rounds)
        if sites is not None:
            quorum = max(2, sites - 1)
            least = min(world.partition.minimum, world.partition.minimum * world.partition.sites // max(1, sites))
            partition = replace(world.partition, sites=sites, minimum=least)
            world = replace(world, partition=partition, unmaskers=None, lost_max=None, masks_each=0, corrupt_max=None)
            job = replace(job, aggregation=replace(job.aggregation, quorum=quorum))
        if epsilon is not None:
            job = replace(job, privacy=replace(job.privacy, epsilon=epsilon, evaluation_epsilon=epsilon))
        return Scenario(world=world, job=job)


def example(name: str) -> Path:
    """The example scenario `name` that comes with the package. Errors: Refusal CONFIG_INVALID."""
    if name not in EXAMPLES:
        raise Refusal(
            Code.CONFIG_INVALID, f"No example {name!r}", f"there are {', '.join(EXAMPLES)}", "Name one of them"
        )
    return Path(str(files("simulations") / "examples" / f"{name}.toml"))


def found(path: Path) -> Path:
    """`path`, or the packaged example that it names: "clinics" or "examples/clinics.toml"."""
    named = path.stem in EXAMPLES and str(path.parent) in (".", "examples")
    return example(path.stem) if named and not path.exists() else path


def read_scenario(path: Path, changes: Sequence[str] = ()) -> Scenario:
    """The scenario of a file.

    changes  settings to replace, as "job.rounds=10"
    Errors: Refusal FILE_MISSING, CONFIG_INVALID.
    """
    table = read_table(path)
    for change in changes:
        put(table, *parted(change))
    with naming(path):
        return scenario_of_table(table)


def scenario_of_table(table: Mapping[str, Any]) -> Scenario:
    """The scenario of such a table as a file holds; the data's schema is filled in unless it is given.

    Errors: Refusal CONFIG_INVALID; FILE_MISSING for data that are not at hand.
    """
    job = table.get("job")
    if isinstance(job, dict) and "data" not in job and isinstance(job.get("dataset"), str):
        table = {**table, "job": {**job, "data": plain(_schema(job["dataset"]))}}
    return load(Scenario, table)


@lru_cache(maxsize=16)
def _schema(name: str) -> Schema:
    return dataset(name).schema


def parted(change: str) -> tuple[str, Any]:
    """Name and value of "a.b=value". Errors: Refusal CONFIG_INVALID."""
    name, equals, text = (part.strip() for part in change.partition("="))
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if not equals or not name:
        raise Refusal(Code.CONFIG_INVALID, f"--set {change}", "it is not of the form a.b=value", "Write a.b=value")
    return name, value


def put(table: dict[str, Any], name: str, value: Any) -> None:
    """Replace the setting with the dotted `name` in `table`, in place; whether it exists is for `load` to say.

    Errors: Refusal CONFIG_INVALID where the name leads into a setting that is no table.
    """
    *folders, last = name.split(".")
    inner: Any = table
    for folder in folders:
        inner = inner.setdefault(folder, {})
        if not isinstance(inner, Mapping):
            raise Refusal(Code.CONFIG_INVALID, f"Setting {name!r}", f"{folder!r} holds no settings", "Correct the name")
    inner[last] = value

"""The cells of a study: one run each, named by what it computes, with seeds that nothing else in the study moves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from common.config import canonical, plain
from common.errors import Refusal
from common.randomness import child_numpy
from common.work import model_of
from server.strategies.catalogue import strategy
from simulations.datasets import Dataset, dataset
from simulations.provision import deal
from simulations.scenario import Scenario, WorldSeeds, put, scenario_of_table
from simulations.study.grid import Variant, variants, words
from simulations.study.plan import Seeds, Study

ROLES = ("data", "deal", "model", "faults", "noise")
TWIN_BITS, TWIN_BOUND = 32, 64.0  # steps of 4e-6 for a hundred sites; updates hardly ever go beyond the bound


@dataclass(frozen=True)
class Cell:
    """One run: a whole scenario, seeds included, on one engine.

    key  SHA-256 of its canonical form, hex: equal cells of any study have equal keys
    """

    scenario: Scenario = field(repr=False)
    engine: str

    @cached_property
    def form(self) -> bytes:
        """Canonical bytes of the cell."""
        return canonical({"engine": self.engine, "scenario": plain(self.scenario)})

    @cached_property
    def key(self) -> str:
        """See the class."""
        return hashlib.sha256(self.form).hexdigest()

    def id(self, code: str) -> str:
        """Name of its result: SHA-256 of the cell and of the code that makes it, hex."""
        return hashlib.sha256(f"hushfed/cell\0{self.key}\0{code}".encode()).hexdigest()


@dataclass(frozen=True)
class Row:
    """One variant over all seeds. cells, twins: by replicate; a cell without privacy is its own twin."""

    settings: Mapping[str, Any]
    cells: tuple[Cell, ...]
    twins: tuple[Cell, ...]


def rows_of(study: Study) -> tuple[Row, ...]:
    """All rows of a study. Errors: Refusal CONFIG_INVALID, FILE_MISSING, as `variants`."""
    return tuple(_row(study, variant) for variant in variants(study))


def cells_of(rows: Sequence[Row]) -> tuple[Cell, ...]:
    """Every cell that must be played, once, replicate by replicate: an early stop leaves a smaller whole study."""
    replicates = range(len(rows[0].cells))
    ordered = [cell for number in replicates for row in rows for cell in (row.cells[number], row.twins[number])]
    return tuple({cell.key: cell for cell in ordered}.values())


def seed_of(seeds: Seeds, role: str, replicate: int) -> int:
    """The seed of a role in a replicate. It depends on nothing else, so that another axis or value moves no draw."""
    return int(child_numpy(seeds.root, "study", role, replicate).integers(2**53))


def check(rows: Sequence[Row]) -> None:
    """Refuse a study of which a cell could not even begin: its model, its strategy, or its split under any seed.

    Errors: Refusal CONFIG_INVALID naming the row.
    """
    data: dict[str, Dataset] = {}
    dealt: set[bytes] = set()
    for row in rows:
        try:
            job = row.cells[0].scenario.job
            strategy(job.aggregation.strategy, **job.aggregation.settings)
            model_of(job)
            for cell in row.cells:
                _check_split(cell.scenario, data, dealt)
        except Refusal as refusal:
            raise Refusal(refusal.code, f"{words(row.settings)}: {refusal.what}", refusal.why, refusal.do) from None


def _row(study: Study, variant: Variant) -> Row:
    twin = _twin(study, variant)
    made = [
        tuple(Cell(seeded(scenario, study.seeds, number), study.engine) for number in range(study.seeds.n))
        for scenario in (variant.scenario, twin)
    ]
    return Row(variant.settings, made[0], made[1])


def seeded(scenario: Scenario, seeds: Seeds, replicate: int) -> Scenario:
    """The scenario with the seeds of a replicate."""
    seed = {role: seed_of(seeds, role, replicate) for role in ROLES}
    parts = WorldSeeds(data=seed["data"], deal=seed["deal"], noise=seed["noise"])
    world = replace(scenario.world, seed=seed["faults"], seeds=parts)
    return Scenario(world=world, job=replace(scenario.job, seed=seed["model"]))


def _twin(study: Study, variant: Variant) -> Scenario:
    """The same training without privacy: no clipping to a norm, no noise; sums travel in the ring of mode "none"."""
    scenario = variant.scenario
    if not scenario.job.privacy.private:
        return scenario
    table: dict[str, Any] = plain(scenario)
    table["job"]["privacy"] = {"mode": "none"}
    asked = table["job"]["aggregation"]
    asked["bits"] = asked["bits"] or TWIN_BITS
    asked["bound"] = asked["bound"] or TWIN_BOUND
    try:
        for name, value in study.twin.items():
            put(table, name, value)
        return scenario_of_table(table)
    except Refusal as refusal:
        what = f"{words(variant.settings)}, its twin without privacy: {refusal.what}"
        raise Refusal(refusal.code, what, refusal.why, refusal.do) from None


def _check_split(scenario: Scenario, data: dict[str, Dataset], dealt: set[bytes]) -> None:
    """data: sets that were read already.  dealt: splits that were tried already."""
    name, world = scenario.job.dataset, scenario.world
    split = canonical([name, plain(world.partition), world.seed_of("deal")])
    if split in dealt:
        return
    if name not in data:
        data[name] = dataset(name)
    deal(scenario, data[name])
    dealt.add(split)

"""The world of a run is built again record by record, or refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from client.site import read_site
from client.sources.catalogue import read_records
from common.config import plain
from common.data import split
from common.errors import Code, Refusal
from deploy.provision import FederationFolder
from simulations.backstage import files_digest
from simulations.provision import plot_of, settle
from simulations.rebuilt import rebuilt, told
from simulations.scenario import Scenario, example, read_scenario


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scenario, FederationFolder]:
    made = read_scenario(example("clinics"), ["world.canaries.count=40"])
    return made, settle(made, tmp_path_factory.mktemp("rebuilt") / "world")


def facts_of(world: tuple[Scenario, FederationFolder]) -> dict[str, Any]:
    made, federation = world
    facts = {"job": plain(made.job), "world": told(made, files_digest(federation))}
    return dict(json.loads(json.dumps(facts)))


def test_every_site_s_records_are_those_that_its_agent_reads(world: tuple[Scenario, FederationFolder]):
    made, federation = world
    for site, again in zip(federation.sites, rebuilt(facts_of(world)), strict=True):
        held = read_site(site.settings).dataset(made.job.dataset)
        records = read_records(held.source, made.job.data, site.root).records
        train, holdout = split(records, (site.root / "state" / "split.key").read_bytes(), held.holdout)
        assert (again.name, again.train.ids, again.holdout.ids) == (site.name, train.ids, holdout.ids)
        assert np.array_equal(again.train.inputs, train.inputs)
        there = {one for one, member in zip(again.canaries.ids, again.members, strict=True) if member}
        assert there <= set(train.ids)
        assert not (set(again.canaries.ids) - there) & set(records.ids)
        assert set(again.real.ids) == set(train.ids) - there


def test_the_public_size_of_a_site_tells_nothing_of_its_coins(world: tuple[Scenario, FederationFolder]):
    """Must: count canaries by their chance. Must not: count those that are in."""
    bare = plot_of(read_scenario(example("clinics")))
    for site, entry in enumerate(world[1].manifest.sites):
        assert abs(entry.nominal_records - 0.7 * (len(bare.dealt[site]) + 5)) <= 5.5


def test_a_run_that_tells_of_no_world_is_refused(world: tuple[Scenario, FederationFolder]):
    facts = facts_of(world)
    for wrong in ({**facts, "world": None}, {**facts, "world": {"records": "ab"}}, {"job": facts["job"]}):
        with pytest.raises(Refusal, match="only a simulated world knows") as refused:
            rebuilt(wrong)
        assert refused.value.code is Code.DATA_INVALID


def test_another_world_than_the_run_s_is_refused(world: tuple[Scenario, FederationFolder]):
    facts = facts_of(world)
    facts["world"]["settings"]["seed"] = 2
    with pytest.raises(Refusal, match="differ from those of the run"):
        rebuilt(facts)


def test_settings_that_no_version_knows_are_refused(world: tuple[Scenario, FederationFolder]):
    facts = facts_of(world)
    facts["world"]["settings"]["canary"] = 3
    with pytest.raises(Refusal) as refused:
        rebuilt(facts)
    assert refused.value.code is Code.CONFIG_INVALID

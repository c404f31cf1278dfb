"""Canary sites: their training records are there or not by a coin, and nothing else about them is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.sources.catalogue import read_records
from client.sources.source import Source
from common.data import split
from common.errors import Refusal
from simulations.datasets import dataset, write_csv
from simulations.planted_sites import HELD, TRAINED, plant_sites
from simulations.planting import CanarySettings
from simulations.provision import plot_of, policy_of
from simulations.scenario import Scenario
from tests.simulations.attacked import MODES, SITE
from tests.worlds import scenario

DEALT = (np.arange(30), np.arange(30, 60))
KEYS = tuple(bytes([i]) * 32 for i in range(42))


def made(name: str = "digits", seed: int = 1):
    return plant_sites(dataset(name), DEALT, KEYS, seed, 0.3)


def world(count: int = 20, **privacy: object) -> Scenario:
    """A job of mode M3 in a world with canary sites."""
    changes = {
        "job.privacy": {"mode": "M3", **SITE, **MODES["M3"], **privacy},
        "job.aggregation.strategy": "fedavg",
        "world.canaries": {"count": count},
    }
    return scenario("M2", changes)


@pytest.mark.parametrize("name", ["clinics", "digits"])
def test_a_site_that_is_out_has_nothing_to_train_on_and_all_else_as_if_it_were_in(name: str, tmp_path: Path):
    planting, held = made(name)
    for site in range(len(DEALT), len(KEYS)):
        for rows, trained in ((held[site], 0), (np.concatenate([held[site], planting.rows[site]]), TRAINED)):
            write_csv(planting.data, rows, tmp_path / "site.csv")
            records = read_records(Source(path="site.csv"), planting.data.schema, tmp_path).records
            train, holdout = split(records, KEYS[site], 0.3)
            assert (len(train), len(holdout)) == (trained, HELD)
        assert len(set(records.labels.tolist())) == 1
        assert len(set(records.ids)) == HELD + TRAINED
        assert planting.members[site].all() or not planting.members[site].any()


def test_updates_of_different_sites_point_in_different_directions():
    """Must: leave an attacker room to tell them apart, which is what such a site is made for."""
    planting, _ = made()
    columns = [feature.name for feature in planting.data.schema.columns]
    firsts = [planting.rows[site][0] for site in range(len(DEALT), len(KEYS))]
    inputs = np.array([[float(planting.data.columns[name][row]) for name in columns] for row in firsts]) / 8 - 1
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    overlaps = np.abs(inputs @ inputs.T - np.eye(len(inputs)))
    assert overlaps.mean() < 0.2


def test_real_sites_stay_what_and_where_they_were():
    planting, held = made()
    data = dataset("digits")
    assert all(planting.data.columns[name][: len(data)] == cells for name, cells in data.columns.items())
    assert all(np.array_equal(one, two) for one, two in zip(held, DEALT, strict=False))
    assert not any(planting.members[site].size for site in range(len(DEALT)))


def test_coins_are_fair_and_those_of_another_seed_are_others():
    keys = tuple(i.to_bytes(32, "big") for i in range(152))
    coins = [
        np.array([one.all() for one in plant_sites(dataset("clinics"), DEALT, keys, seed, 0.3)[0].members[2:]])
        for seed in (1, 2, 1)
    ]
    assert abs(coins[0].mean() - 0.5) < 0.1
    assert np.array_equal(coins[0], coins[2])
    assert not np.array_equal(coins[0], coins[1])


def test_a_world_gets_so_many_sites_more_and_the_coordinator_learns_no_coin():
    plot = plot_of(world())
    assert len(plot.names) == len(set(plot.names)) == 3 + 20
    assert len({plot.expected(site) for site in range(3, 23)}) == 1
    assert {len(plot.held(site)) for site in range(3, 23)} == {HELD, HELD + TRAINED}
    assert policy_of(world())["data"]["min_records"] == 0, "or a site that is out would refuse"


def test_records_are_planted_where_single_ones_are_protected():
    records = scenario("M2", {"world.canaries": {"count": 20}})
    assert not records.whole_canaries
    assert len(plot_of(records).names) == 3


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"quantile": 0.5}, "would still tell that it is within the clip"),
        ({"local": {"epsilon": 2.0, "clip": 1.0, "sampling_rate": 0.5}}, "would still send the noise"),
    ],
)
def test_jobs_in_which_a_site_that_is_out_sends_something_are_refused(setting: dict[str, object], why: str):
    with pytest.raises(Refusal, match=why):
        plot_of(world(**setting))


def test_images_as_arrays_and_a_share_that_leaves_too_few_are_refused():
    pixels = replace(dataset("digits"), pixels=np.zeros((1797, 1, 8, 8), np.uint8))
    with pytest.raises(Refusal, match="rows of cells only"):
        plant_sites(pixels, DEALT, KEYS, 1, 0.3)
    with pytest.raises(Refusal):
        CanarySettings(count=1)

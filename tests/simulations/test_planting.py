"""Canaries are records like others, in by fair coins of their own, and always where a site would train on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.sources.catalogue import read_records
from client.sources.source import Source
from common.data import split
from common.errors import Refusal
from simulations.datasets import dataset, write_csv
from simulations.planting import CanarySettings, Planting, plant

KEYS = (bytes(32), bytes([1]) * 32, bytes([2]) * 32)


def planted(name: str = "clinics", count: int = 60, seed: int = 1, holdout: float = 0.3) -> Planting:
    return plant(dataset(name), CanarySettings(count=count), seed, KEYS, holdout)


@pytest.mark.parametrize("name", ["clinics", "digits"])
def test_every_canary_fits_the_schema_and_is_trained_on(name: str, tmp_path: Path):
    found = planted(name)
    data = dataset(name)
    for site, key in enumerate(KEYS):
        write_csv(found.data, found.rows[site], tmp_path / "canaries.csv")
        records = read_records(Source(path="canaries.csv"), data.schema, tmp_path).records
        train, holdout = split(records, key, 0.3)
        assert (len(train), len(holdout)) == (20, 0)
        assert len(set(records.ids)) == 20
        assert len(set(records.labels.tolist())) > 1


def test_real_rows_stay_what_and_where_they_were():
    found, data = planted(), dataset("clinics")
    assert all(found.data.columns[name][: len(data)] == cells for name, cells in data.columns.items())
    assert np.array_equal(found.data.labels[: len(data)], data.labels)
    assert sorted(np.concatenate(found.rows)) == list(range(len(data), len(data) + 60))


def test_the_same_seed_gives_the_same_canaries_and_coins_and_another_others():
    one, two, other = planted(), planted(), planted(seed=2)
    assert one.data.columns == two.data.columns
    assert all(np.array_equal(a, b) for a, b in zip(one.members, two.members, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one.members, other.members, strict=True))


def test_coins_are_fair_and_know_nothing_of_the_canaries():
    """Must: be as many in as out, about. Must not: depend on how the canaries were drawn."""
    coins = np.concatenate(planted("digits", count=1500).members)
    assert abs(coins.mean() - 0.5) < 0.04
    same = np.concatenate(planted("digits", count=1500, holdout=0.6).members)
    assert np.array_equal(coins, same)


def test_only_those_in_are_added():
    found = planted()
    assert set(found.added(0)) == {row for row, there in zip(found.rows[0], found.members[0], strict=True) if there}


def test_without_settings_nothing_is_planted():
    found = plant(dataset("clinics"), None, 1, KEYS, 0.3)
    assert len(found.data) == 442
    assert all(rows.size == 0 for rows in found.rows)


@pytest.mark.parametrize("count", [0, 1, -5, 10**9, True])
def test_a_number_of_canaries_that_makes_no_game_is_refused(count):
    with pytest.raises(Refusal):
        CanarySettings(count=count)

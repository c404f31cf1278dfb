"""Sites that draw from one pool: none twice the same record, all records equally often, any site by itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Refusal
from simulations.partitioners import Partition, partition
from simulations.resampling import Resampled


@given(pool=st.integers(1, 200), seed=st.integers(0, 2**40), site=st.integers(0, 10**6 - 1), data=st.data())
def test_a_site_holds_different_records_in_order(pool: int, seed: int, site: int, data: st.DataObject) -> None:
    records = data.draw(st.integers(1, pool))
    dealt = Resampled(10**6, pool, records, seed)
    rows = dealt[site]
    assert len(rows) == records
    assert (np.diff(rows) > 0).all()
    assert rows[0] >= 0
    assert rows[-1] < pool
    assert np.array_equal(rows, Resampled(10**6, pool, records, seed)[site])
    assert np.array_equal(rows, dealt.rows(np.array([0, site]))[1])


def test_records_are_held_about_equally_often() -> None:
    """Must: give each of 100 records to a tenth of 5,000 sites, within six standard deviations."""
    counts = np.bincount(Resampled(5000, 100, 10, 3).rows(np.arange(5000)).ravel(), minlength=100)
    assert np.abs(counts - 500).max() < 6 * np.sqrt(5000 * 0.1 * 0.9)


def test_two_sites_share_as_many_records_as_chance_gives() -> None:
    """Must not: hand out the same few sets again and again."""
    dealt = Resampled(400, 1000, 50, 7).rows(np.arange(400))
    shared = [len(np.intersect1d(dealt[i], dealt[i + 1])) for i in range(0, 400, 2)]
    assert 2.0 < np.mean(shared) < 3.0  # 50 * 50 / 1000
    assert len({tuple(rows) for rows in dealt}) == 400


@pytest.mark.parametrize("wrong", [-(10**6) - 1, 10**6])
def test_a_site_beyond_the_population_is_none(wrong: int) -> None:
    with pytest.raises(IndexError):
        Resampled(10**6, 10, 5, 0)[wrong]


@pytest.mark.parametrize("settings", [{"kind": "resampled"}, {"records": 5}, {"kind": "resampled", "records": 0}])
def test_records_belong_to_the_resampled_partition(settings: dict[str, object]) -> None:
    with pytest.raises(Refusal, match="records"):
        Partition(**settings)  # type: ignore[arg-type]  # what a file may hold


def test_more_records_than_there_are_cannot_be_drawn() -> None:
    with pytest.raises(Refusal, match="10 records not dealt"):
        partition(Partition(kind="resampled", sites=3, records=11, minimum=1), np.zeros(10, np.int64), 0)

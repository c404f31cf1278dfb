"""Populations of any size over one pool of records: what a site holds follows from its number, at no cost before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from common.randomness import child_numpy

Rows = NDArray[np.int64]
_MOST_STRIDES = 4096


@dataclass(frozen=True)
class Resampled(Sequence[Rows]):
    """`sites` sites of `records` of `pool` rows each; two sites may hold the same row, one never twice.

    Each site takes every s-th row of the shuffled pool from a place of its own, around the end; s, prime to the
    pool's size, is drawn for each site too. So a site of a million costs what one of ten costs, and no more memory.
    """

    sites: int
    pool: int
    records: int
    seed: int

    def __len__(self) -> int:
        return self.sites

    @overload
    def __getitem__(self, site: int) -> Rows: ...
    @overload
    def __getitem__(self, site: slice) -> Sequence[Rows]: ...
    def __getitem__(self, site: int | slice) -> Rows | Sequence[Rows]:
        if isinstance(site, slice):
            return [self[each] for each in range(*site.indices(self.sites))]
        if not -self.sites <= site < self.sites:
            raise IndexError(site)
        only: Rows = self.rows(np.array([site % self.sites]))[0]
        return only

    def rows(self, sites: Rows) -> Rows:
        """Rows of many sites at once, [sites, records], ascending in each."""
        first = mixed(sites, self.seed) % np.uint64(self.pool)
        stride = self._strides[mixed(sites, self.seed + 1) % np.uint64(len(self._strides))]
        steps = np.arange(self.records, dtype=np.uint64)
        places = (first[:, None] + stride[:, None] * steps) % np.uint64(self.pool)
        return np.sort(self._order[places.astype(np.int64)], axis=1)

    @cached_property
    def _order(self) -> Rows:
        return child_numpy(self.seed, "partition", "resampled").permutation(self.pool).astype(np.int64)

    @cached_property
    def _strides(self) -> NDArray[np.uint64]:
        draw = child_numpy(self.seed, "partition", "strides")
        tried = draw.integers(1, max(2, self.pool), size=8 * _MOST_STRIDES)
        good = [int(one) for one in tried if math.gcd(int(one), self.pool) == 1][:_MOST_STRIDES]
        return np.array(good or [1], np.uint64)


def mixed(numbers: Rows, seed: int) -> NDArray[np.uint64]:
    """64 bits for each number that look independent. Source: splitmix64, Steele, Lea and Flood 2014, figure 17."""
    with np.errstate(over="ignore"):
        word = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        word += np.uint64(seed % 2**64) * np.uint64(0xD1B54A32D192ED03)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found: NDArray[np.uint64] = word ^ (word >> np.uint64(31))
    return found

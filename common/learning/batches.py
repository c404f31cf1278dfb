"""Which records each local step takes: epochs through all of them, in an order that is drawn anew for each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Batches = tuple[NDArray[np.int64], ...]


def batches(count: int, size: int, steps: int, draws: np.random.Generator) -> Batches:
    """The row numbers of `steps` batches of `size` out of `count` records; none where there are no records.

    Every epoch takes each record once; its last batch is smaller where `size` does not divide `count`.
    """
    dealt: list[NDArray[np.int64]] = []
    while count and len(dealt) < steps:
        order = draws.permutation(count).astype(np.int64, copy=False)
        dealt += [order[start : start + size] for start in range(0, count, size)]
    return tuple(dealt[:steps])

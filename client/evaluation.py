"""Held-out records counted by group, label and score: integers that add up over sites."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from client.trainer import Workbench
from common.data import Records
from common.metrics import Counts, CountShape

AT_ONCE = 4096  # records of one forward pass


@torch.no_grad()
def counts(bench: Workbench, records: Records, shape: CountShape) -> NDArray[np.int64]:
    """H[group, label, bin] as lanes; each record is counted in one cell. Its score is 0 where it is not finite."""
    bench.model.eval()
    total = Counts.zero(shape)
    for start in range(0, len(records), AT_ONCE):
        part = records.take(np.arange(start, min(start + AT_ONCE, len(records))))
        scores = bench.task.scores(bench.model(part.inputs.to(bench.device)).cpu())
        total = total + Counts.of(shape, torch.nan_to_num(scores, 0.0, 0.0, 0.0), part.labels, part.groups)
    return total.to_lanes()

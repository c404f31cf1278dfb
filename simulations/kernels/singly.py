"""Rows and sums of updates that come one after another."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray

from common.config import finite
from simulations.kernels.kernel import Total


def refuse_clip(clip: float | None) -> None:
    """Errors: Refusal CONFIG_INVALID."""
    if clip is not None:
        finite(clip, "clip", above=0.0)


def rows_of(updates: Iterable[torch.Tensor], size: int) -> NDArray[np.float32]:
    """The updates, float [d] each, as float32 [n, d]."""
    rows = [update.to(torch.float32, copy=True) for update in updates]
    found: NDArray[np.float32] = torch.stack(rows).numpy() if rows else np.zeros((0, size), np.float32)
    return found


def total_of(updates: Iterable[tuple[torch.Tensor, float]], size: int, clip: float | None) -> Total:
    """The sum of updates, float [d] each, with their weights."""
    refuse_clip(clip)
    whole = torch.zeros(size, dtype=torch.float64)
    norms = []
    for update, weight in updates:
        norm = float(torch.linalg.vector_norm(update, dtype=torch.float64))
        norms.append(norm if np.isfinite(norm) else np.inf)
        if np.isfinite(norm) and norm:
            whole.add_(update, alpha=weight * (1.0 if clip is None else min(1.0, clip / norm)))
    found = np.array(norms, np.float64)
    return Total(whole.numpy(), np.isfinite(found), None if clip is None else found)

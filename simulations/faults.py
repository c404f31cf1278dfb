"""What goes wrong in a world: which answers are lost, by seed, site, round and attempt, and by nothing else."""

from __future__ import annotations

from common.orders import Task
from common.randomness import child_numpy


def lost(seed: int, chance: float, place: tuple[int, Task, int, int]) -> bool:
    """Whether a site's answers of an attempt are lost. place: site, task, round, attempt."""
    return bool(chance) and bool(child_numpy(seed, "dropout", *place).random() < chance)

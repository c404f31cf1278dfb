"""Memory that a step returns stays with the process for the next step, instead of going through the system."""

from __future__ import annotations

from functools import cache

import torch

_ROOM = 31 << 20  # bytes, just below the size from which glibc asks the system for every block


@cache
def keep_memory() -> None:
    """Once a process: let the allocator keep what steps free, 62 MiB at most.

    glibc learns from the first large block that is freed which sizes come back, and how much to hold; one block that
    nobody writes to teaches it that. Without, each step of a small network returns its activations and has every page
    of them zeroed anew, a fifth of its time. Other allocators are not touched.
    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, which are adjusted dynamically.
    """
    torch.empty(_ROOM, dtype=torch.uint8)  # freed at once

"""Steps do not return their memory to the system only to ask for it again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
import resource, sys, torch
from common.privacy.clipping.memory import keep_memory

if sys.argv[1] == "kept":
    keep_memory()

def step():
    return [torch.ones(1 << 20) for _ in range(5)]  # 20 MiB

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(way: str) -> int:
    """Pages that ten steps had to ask the system for, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, way],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[4],
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc learns from a block that was freed")
def test_pages_are_asked_for_once_and_not_at_every_step() -> None:
    assert faults("kept") < faults("as it is") / 10

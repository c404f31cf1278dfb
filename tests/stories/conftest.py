"""What stories share: where the programs that they start are found."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def programs() -> Iterator[None]:
    """Processes started inside find `held_agent` and this checkout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{Path(__file__).parent}")
        yield


collect_ignore = ["hasty_coordinator.py"]  # it changes the coordinator that imports it, so only its own process may

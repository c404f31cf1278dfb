"""A run that nobody touched, and a copy of it for each test to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.simulations.attacked import attacked_sites
from tests.simulations.recorded import ROUNDS, write_run


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("honest") / "run", rounds=ROUNDS)


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "run"))


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of mode M3 among six sites, and 48 canary sites."""
    return attacked_sites(tmp_path_factory.mktemp("sites"), "M3", 48)


@pytest.fixture(scope="session")
def turns(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of mode M5."""
    return attacked_sites(tmp_path_factory.mktemp("turns"), "M5", 48)


@pytest.fixture(scope="session")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of mode M4 among six sites, with noise for single records inside them."""
    local = {"epsilon": 2.0, "clip": 1.0, "sampling_rate": 0.5}
    return attacked_sites(tmp_path_factory.mktemp("layered"), "M4", local=local)

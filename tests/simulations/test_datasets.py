"""Data sets to simulate with, their tables on disk, and what plain training reaches on them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from client.sources.catalogue import read_records
from client.sources.source import Source
from common import config
from common.data import Records, Schema, split
from common.errors import Code, Refusal
from common.learning.tasks import task
from common.models.catalogue import build
from simulations.baselines import baselines
from simulations.datasets import Dataset, dataset, heart, write_csv
from simulations.partitioners import Partition, partition

DATA = Path(os.environ.get("HUSHFED_DATA") or Path(__file__).parents[3] / "shared" / "data")
HEART_AT_HAND = (DATA / "heart-disease-4-hospitals").is_dir()


def sites(data: Dataset, plan: Partition, seed: int, folder: Path) -> list[tuple[Records, Records]]:
    """The two parts of every site, through tables on disk as a real site has them."""
    found = []
    dealt = partition(plan, data.labels, seed, data.columns.get(data.home))
    for number, rows in enumerate(dealt):
        write_csv(data, rows, folder / f"{number}.csv")
        records = read_records(Source(path=f"{number}.csv"), data.schema, folder).records
        assert records.labels.tolist() == data.labels[rows].tolist()
        found.append(split(records, bytes([seed, number]) * 16, 0.3))
    return found


def reached(name: str, model: str, seed: int, folder: Path) -> tuple[float, float]:
    data = dataset(name)
    parts = sites(data, Partition(sites=4), seed, folder)
    shape, classes = data.schema.shape, data.schema.classes
    found = baselines(
        lambda: build(model, inputs=shape, classes=classes, seed=seed),
        task(classes),
        [train for train, _ in parts],
        [held for _, held in parts],
    )
    assert found.pooled is not None
    assert found.alone_mean is not None
    return found.pooled, found.alone_mean


@pytest.mark.parametrize(
    ("name", "count", "shape", "groups"), [("clinics", 442, (11,), 12), ("digits", 1797, (1, 8, 8), 1)]
)
def test_embedded_data_come_with_a_schema_a_job_can_hold(name: str, count: int, shape: object, groups: int) -> None:
    data = dataset(name)
    assert len(data) == count
    assert data.schema.shape == shape
    assert len(data.schema.groups) == groups
    assert config.load(Schema, config.plain(data.schema)) == data.schema
    assert config.canonical(config.load(Schema, config.plain(data.schema))) == config.canonical(data.schema)


def test_every_digit_comes_back_from_the_table_unchanged(tmp_path: Path) -> None:
    data = dataset("digits")
    write_csv(data, range(50), tmp_path / "a.csv")
    found = read_records(Source(path="a.csv"), data.schema, tmp_path)
    right = [[float(data.columns[f"pixel{i}"][row]) / 16 for i in range(64)] for row in range(50)]
    assert np.allclose(found.records.inputs.reshape(50, 64).numpy(), right)
    assert found.clipped == {}


def test_hardly_any_patient_lies_outside_the_clinical_ranges(tmp_path: Path) -> None:
    """Ranges are knowledge, so a few values may lie outside; many would mean that the knowledge is wrong."""
    data = dataset("clinics")
    write_csv(data, range(442), tmp_path / "a.csv")
    clipped = read_records(Source(path="a.csv"), data.schema, tmp_path).clipped
    assert sum(clipped.values()) <= 0.01 * 442 * 10


def test_plain_training_reaches_the_known_accuracies(tmp_path: Path) -> None:
    """Pooled logistic regression on the clinics is known to reach about 0.735, with 0.04 over splits."""
    start = time.process_time()
    found = [reached("clinics", "logistic", seed, tmp_path) for seed in range(4)]
    assert 0.69 <= np.mean([pooled for pooled, _ in found]) <= 0.80
    assert (time.process_time() - start) / 4 < 3.0
    pooled, alone = reached("digits", "logistic", 0, tmp_path)
    assert pooled > 0.94
    assert pooled > alone > 0.85


def test_baselines_replay_and_leave_out_sites_without_records(tmp_path: Path) -> None:
    data = dataset("clinics")
    parts = sites(data, Partition(sites=2), 0, tmp_path)
    empty = parts[0][0].take([])
    trains = [parts[0][0], parts[1][0], empty]
    holdouts = [held for _, held in parts]

    def run() -> object:
        return baselines(lambda: build("logistic", inputs=(11,), classes=2), task(2), trains, holdouts)

    torch.manual_seed(1)
    first = run()
    torch.manual_seed(2)
    assert run() == first
    assert baselines(lambda: build("logistic", inputs=(11,), classes=2), task(2), trains, holdouts).alone[2] is None
    nobody = baselines(lambda: build("logistic", inputs=(11,), classes=2), task(2), [empty], [empty])
    assert nobody.pooled is nobody.alone_mean is None


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(Refusal, match="nearest is 'clinics'"):
        dataset("clinic")


def test_data_that_are_not_at_hand_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="HUSHFED_DATA") as caught:
        heart(tmp_path)
    assert caught.value.code is Code.FILE_MISSING


def test_no_data_set_prints_its_rows() -> None:
    assert len(repr(dataset("clinics"))) < 3000


if HEART_AT_HAND:

    def test_four_real_hospitals_are_natural_sites(tmp_path: Path) -> None:
        data = heart(DATA)
        parts = sites(data, Partition(kind="natural", column="hospital"), 0, tmp_path)
        assert [len(train) + len(held) for train, held in parts] == [303, 294, 123, 200]
        found = baselines(
            lambda: build("logistic", inputs=data.schema.shape, classes=2),
            task(2),
            [train for train, _ in parts],
            [held for _, held in parts],
        )
        assert found.pooled is not None
        assert found.pooled > 0.72

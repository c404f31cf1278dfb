"""Public data that belong together by nature: read whole, encoded by the schema, dealt by patient, station, writer."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from client.sources.catalogue import read_records
from client.sources.source import Source
from common import config
from common.data import Schema
from common.errors import Code, Refusal
from simulations.datasets import Dataset, dataset, groups_of, homes_of, write_rows
from simulations.images import writers
from simulations.partitioners import Partition, partition
from simulations.provision import deal
from simulations.public_tables import STATIONS, air, diabetes
from simulations.scenario import Scenario, example, read_scenario, scenario_of_table


def read_back(data: Dataset, rows: np.ndarray, folder: Path) -> None:
    """Through a site's table and the schema: every label as it was, hardly anything clipped."""
    path, kind = write_rows(data, rows, folder / "site")
    header = path.read_text().splitlines()[0].split(",")
    assert data.home not in header
    assert not data.homes.keys() & set(header)
    found = read_records(Source(path=path.name, kind=kind), data.schema, folder)
    assert found.records.labels.tolist() == data.labels[rows].tolist()
    assert sum(found.clipped.values()) < 0.01 * len(rows)
    assert config.load(Schema, config.plain(data.schema)) == data.schema


@pytest.fixture(scope="module")
def stays(public_data: Path) -> Dataset:
    return diabetes(public_data)


def test_stays_of_diabetics_are_read_whole(stays: Dataset, tmp_path: Path) -> None:
    assert len(stays) == 101_766
    assert int(stays.labels.sum()) == 35_545 + 11_357
    assert len(set(stays.homes["patient"])) == 71_518
    read_back(stays, np.arange(0, 101_766, 50), tmp_path)


def test_a_patient_s_stays_are_dealt_to_one_site(stays: Dataset) -> None:
    patients = homes_of(stays, "patient")
    dealt = partition(Partition(kind="homes", column="patient", sites=10), stays.labels, 1, patients)
    held = [{patients[row] for row in rows} for rows in dealt]
    assert sum(map(len, held)) == 71_518
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 40


def test_twelve_stations_are_natural_sites(public_data: Path, tmp_path: Path) -> None:
    data = air(public_data)
    dealt = partition(Partition(kind="natural", column="station"), data.labels, 0, homes_of(data, "station"))
    assert len(dealt) == len(STATIONS) == 12
    assert all(1300 < len(rows) <= 1461 for rows in dealt)
    assert 0.35 < data.labels.mean() < 0.42
    read_back(data, dealt[3], tmp_path)


def test_every_image_of_mnist_has_its_writer(public_data: Path) -> None:
    found = writers(public_data)
    assert len(found["writer"]) == 60_000
    assert len(set(found["writer"])) == 539
    assert sorted((found["series"].count(name), name) for name in set(found["series"])) == [
        (29_050, "4"),
        (30_950, "0"),
    ]
    sizes = [len(rows) for rows in partition(Partition(kind="natural", column="writer"), *_of(found["writer"]))]
    assert (len(sizes), min(sizes), max(sizes)) == (539, 19, 131)


def _of(homes: object) -> tuple[np.ndarray, int, object]:
    return np.zeros(60_000, np.int64), 0, homes


@pytest.mark.parametrize("read", [diabetes, air])
def test_tables_that_are_absent_or_damaged_are_refused(read: Callable[[Path], Dataset], tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="HUSHFED_DATA") as found:
        read(tmp_path)
    assert found.value.code is Code.FILE_MISSING
    for name in (
        "diabetes-130-hospitals/diabetic_data.csv.gz",
        "beijing-air-12-stations/PRSA_Data_Aotizhongxin_20130301-20170228.csv.gz",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no gzip")
    with pytest.raises(Refusal) as found:
        read(tmp_path)
    assert found.value.code is Code.DATA_INVALID


def test_writers_are_optional_but_never_damaged(tmp_path: Path) -> None:
    assert writers(tmp_path) == {}
    path = tmp_path / "mnist" / "qmnist-train-labels-idx2-int.gz"
    path.parent.mkdir()
    for content in (b"no gzip", gzip.compress(b"\x00\x00\x0c\x02" + bytes(100))):
        path.write_bytes(content)
        with pytest.raises(Refusal) as found:
            writers(tmp_path)
        assert found.value.code is Code.DATA_INVALID


def dealt_by(**plan: object) -> tuple[Scenario, Dataset]:
    table = config.plain(read_scenario(example("clinics")))
    table["world"]["partition"] = {"sites": 6, "minimum": 8, **plan}
    return scenario_of_table(table), dataset("clinics")


def test_sites_by_a_sensitive_attribute_use_its_bands() -> None:
    made, data = dealt_by(kind="group", column="age", affinity=1.0)
    bands = groups_of(data, "age")
    held = [{bands[row] for row in rows} for rows in deal(made, data)]
    assert all(len(each) == 1 for each in held)
    assert set.union(*held) == {"<40", "40-60", "60+"}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"kind": "group", "column": "sexx", "affinity": 0.5}, "the nearest is 'sex'"),
        ({"kind": "homes", "column": "hospital"}, "it knows age"),
        ({"kind": "classes", "classes": 3}, "the data have 2"),
    ],
)
def test_a_deal_that_the_data_do_not_allow_is_refused(plan: dict[str, object], said: str) -> None:
    with pytest.raises(Refusal) as found:
        deal(*dealt_by(**plan))
    assert found.value.code is Code.CONFIG_INVALID
    assert said in str(found.value)


def test_a_class_that_nobody_has_is_refused() -> None:
    made, data = dealt_by(kind="label")
    data.labels[:] = 1
    with pytest.raises(Refusal, match="nobody has a record of class 'at most 140'"):
        deal(made, data)
    with pytest.raises(Refusal, match="no sensitive attribute"):
        groups_of(dataset("digits"), "sex")

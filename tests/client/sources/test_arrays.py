"""Reading a site's images from an .npz file."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from client.sources.arrays import read_arrays
from client.sources.source import Reading, Source
from common.data import Attribute, Image, Label, Schema
from common.errors import Code, Refusal

SCHEMA = Schema(
    image=Image(shape=(1, 2, 2), range=(0.0, 16.0)),
    label=Label(column="digit", classes=("0", "1", "2")),
    sensitive=(Attribute(name="sex", categories=("f", "m")), Attribute(name="age", edges=(40.0,))),
)
GOOD: dict[str, Any] = {
    "inputs": np.array([[0, 8, 16, 20], [4, 4, 4, 4]], np.uint8).reshape(2, 1, 2, 2),
    "labels": np.array([2, 0]),
    "sex": np.array(["f", "x"]),
    "age": np.array([39.5, np.nan]),
}


def read(folder: Path, arrays: dict[str, Any], **settings: Any) -> Reading:
    np.savez(folder / "site.npz", **arrays)
    return read_arrays(Source(path="site.npz", kind="arrays", **settings), SCHEMA, folder)


def test_images_become_records(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert found.records.inputs.reshape(2, 4).tolist() == [[0, 0.5, 1, 1], [0.25] * 4]
    assert found.records.labels.tolist() == [2, 0]
    assert [SCHEMA.groups[g] for g in found.records.groups] == ["sex=f, age=<40", "sex=unknown, age=unknown"]
    assert found.clipped == {"inputs": 1}
    assert found.records.ids[0] != found.records.ids[1]


def test_images_of_one_person_share_an_id(tmp_path: Path) -> None:
    ids = read(tmp_path, {**GOOD, "person": np.array([7, 7])}, id="person").records.ids
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"inputs": GOOD["inputs"].reshape(2, 4)}, "schema asks for"),
        ({"inputs": GOOD["inputs"].astype(np.complex64)}, "another kind of number"),
        ({"inputs": np.full((2, 1, 2, 2), np.nan)}, "not finite"),
        ({"inputs": np.zeros((0, 1, 2, 2)), "labels": np.zeros(0, int)}, "no records"),
        ({"inputs": np.array(3)}, "no records"),
        ({"labels": np.array([0.0, 1.0])}, "another kind of number"),
        ({"labels": np.array([0])}, "schema asks for"),
        ({"labels": np.array([0, 3])}, "from 0 to 2"),
        ({"labels": np.array([-1, 0])}, "from 0 to 2"),
        ({"sex": np.array(["f"])}, "schema asks for"),
        ({"labels": np.array([{}, {}], dtype=object)}, "Python objects"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    with pytest.raises(Refusal, match=told) as caught:
        read(tmp_path, {**GOOD, **change})
    assert caught.value.code is Code.DATA_INVALID


def test_an_absent_array_is_named(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="'age' not found"):
        read(tmp_path, {name: array for name, array in GOOD.items() if name != "age"})


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"plain text", b"\x80\x04N."])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "site.npz").write_bytes(content)
    with pytest.raises(Refusal, match="damaged") as caught:
        read_arrays(Source(path="site.npz"), SCHEMA, tmp_path)
    assert caught.value.code is Code.DATA_INVALID


@given(place=some.integers(0, 10_000), value=some.integers(0, 255), length=some.integers(0, 10_000))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_file_is_read_or_refused_and_never_ends_in_another_error(
    tmp_path: Path, place: int, value: int, length: int
) -> None:
    np.savez_compressed(tmp_path / "site.npz", **GOOD)
    raw = bytearray((tmp_path / "site.npz").read_bytes())
    raw[place % len(raw)] = value
    (tmp_path / "site.npz").write_bytes(raw[: max(1, length % (4 * len(raw)))])
    with contextlib.suppress(Refusal):
        assert len(read_arrays(Source(path="site.npz"), SCHEMA, tmp_path).records) == 2


def test_a_single_array_and_a_schema_without_an_image_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "site.npy", np.zeros(3))
    with pytest.raises(Refusal, match=r"is no \.npz file"):
        read_arrays(Source(path="site.npy"), SCHEMA, tmp_path)
    flat = Schema(features=SCHEMA.columns, label=SCHEMA.label)
    with pytest.raises(Refusal, match="no image"):
        read_arrays(Source(path="site.npy"), flat, tmp_path)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as caught:
        read_arrays(Source(path="none.npz"), SCHEMA, tmp_path)
    assert caught.value.code is Code.FILE_MISSING

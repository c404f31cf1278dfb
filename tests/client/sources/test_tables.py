"""Reading a site's table: what fits becomes records, what does not is refused without showing a value."""

from __future__ import annotations

import contextlib
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from client.sources.catalogue import read_records
from client.sources.source import Reading, Source
from common.data import Attribute, Feature, Label, Schema, split
from common.errors import Code, Refusal

SCHEMA = Schema(
    features=(
        Feature(name="age", range=(20.0, 80.0)),
        Feature(name="dose", range=(0.0, 10.0), missing="midpoint"),
        Feature(name="kind", categories=("a", "b"), missing="midpoint"),
    ),
    label=Label(column="score", above=140.0),
    sensitive=(Attribute(name="sex", categories=("f", "m")), Attribute(name="age", edges=(40.0, 60.0))),
)
HEAD = "age,dose,kind,score,sex\n"


def read(folder: Path, content: str | bytes, **settings: object) -> Reading:
    raw = content if isinstance(content, bytes) else content.encode()
    (folder / "site.csv").write_bytes(raw)
    return read_records(Source(path="site.csv", **settings), SCHEMA, folder)  # type: ignore[arg-type]


def refused(folder: Path, content: str | bytes, told: str, **settings: object) -> Refusal:
    with pytest.raises(Refusal, match=told) as caught:
        read(folder, content, **settings)
    assert caught.value.code is Code.DATA_INVALID
    return caught.value


def test_a_table_becomes_scaled_inputs_classes_and_groups(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "20,10,a,141,f\n50,5,b,140,m\n80,2.5,a,200,\n")
    assert found.records.inputs.tolist() == [[-1, 1, 1, 0], [0, 0, 0, 1], [1, -0.5, 1, 0]]
    assert found.records.labels.tolist() == [1, 0, 1]
    assert [SCHEMA.groups[g] for g in found.records.groups.tolist()] == [
        "sex=f, age=<40",
        "sex=m, age=40-60",
        "sex=unknown, age=60+",
    ]
    assert found.records.inputs.dtype.is_floating_point
    assert (found.clipped, found.imputed) == ({}, {})


def test_the_lower_edge_belongs_to_its_band(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "39.9,1,a,1,f\n40,1,a,1,f\n60,1,a,1,f\n")
    assert [SCHEMA.groups[g] for g in found.records.groups.tolist()] == [
        "sex=f, age=<40",
        "sex=f, age=40-60",
        "sex=f, age=60+",
    ]


def test_values_outside_the_public_range_are_moved_to_its_end_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "10,11,a,1,f\n99,-1,b,1,f\n50,5,b,1,f\n")
    assert found.records.inputs[:2, :2].tolist() == [[-1, 1], [1, -1]]
    assert found.clipped == {"age": 2, "dose": 2}


def test_absent_values_take_the_public_middle_where_the_schema_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, HEAD + "50,?,NA,1,f\n50,, ,1,f\n")
    assert found.records.inputs.tolist() == [[0, 0, 0.5, 0.5]] * 2
    assert found.imputed == {"dose": 2, "kind": 2}


def test_order_of_columns_further_columns_blanks_and_line_ends_do_not_matter(tmp_path: Path) -> None:
    plain = read(tmp_path, HEAD + "20,10,a,141,f\n").records
    other = read(
        tmp_path, b'\xef\xbb\xbfsex;name; age;score;kind;dose\r\nf;"x;y\nz"; 20 ;141;a;10\r\n\r\n', delimiter=";"
    )
    assert other.records.inputs.tolist() == plain.inputs.tolist()
    assert other.records.groups.tolist() == plain.groups.tolist()


def test_a_file_without_a_header_line_is_read_by_the_names_given(tmp_path: Path) -> None:
    columns = ("age", "dose", "kind", "score", "sex")
    found = read(tmp_path, "20,10,a,141,f\n", columns=columns)
    assert len(found.records) == 1
    fault = refused(tmp_path, "20,10,a,141,f\nx,10,a,141,f\n", "line 2", columns=columns)
    assert "'age'" in fault.what


def test_gzip_is_known_by_its_content(tmp_path: Path) -> None:
    packed = gzip.compress((HEAD + "20,10,a,141,f\n").encode())
    assert len(read(tmp_path, packed).records) == 1
    refused(tmp_path, packed[:-9], "damaged")
    refused(tmp_path, packed[:12] + b"\xff\xff" + packed[14:], "damaged")


@pytest.mark.parametrize(
    "cell", ["x", "nan", "inf", "-Infinity", "1e999", "1_000", "١٢", "0x10", "1,5", "--1", "1e", "+"]
)
def test_a_cell_that_is_no_finite_number_is_refused_by_column_and_line_only(tmp_path: Path, cell: str) -> None:
    fault = refused(tmp_path, HEAD + f'20,10,a,141,f\n"{cell}",10,a,141,f\n', "Column 'age', line 3")
    shown = str(fault).replace("Column 'age', line 3", "")
    if len(cell) > 1:
        assert cell not in shown


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (",1,a,1,f", "'age', line 2: the value has no value"),
        ("30,1,secret,1,f", "'kind', line 2: the value is no category"),
        ("30,1,a,,f", "'score', line 2"),
        ("30,1,a,secret,f", "'score', line 2: the value is not a number"),
        ("30,1,a,1", "line 2 not read: it has 4 cells where the header has 5"),
        ("30,1,a,1,f,secret", "6 cells"),
        ('30,1,"a,1,f', "quotes"),
        ('30,1,"a"b,1,f', "quotes"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_without_showing_its_value(tmp_path: Path, row: str, told: str) -> None:
    assert "secret" not in str(refused(tmp_path, HEAD + row + "\n", told))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        (HEAD, "no rows"),
        ("aeg,dose,kind,score,sex\n1,1,a,1,f\n", "the nearest column is 'aeg'"),
        ("age,dose,kind,score\n1,1,a,1\n", "none of the 4 columns bears that name"),
        ("age,dose,kind,score,sex,age\n1,1,a,1,f,1\n", "columns 1 and 6 both bear that name"),
        (b"age,dose,kind,score,sex\n1,1,\xff,1,f\n", "line 2 not read: its bytes are not UTF-8"),
        (HEAD + "30,1,a,1,f\n30,1," + "a" * 200_000 + ",1,f\n", "too long"),
    ],
)
def test_a_file_that_is_no_table_of_the_schema_is_refused(tmp_path: Path, content: str | bytes, told: str) -> None:
    refused(tmp_path, content, told)


def test_a_header_that_is_really_a_record_is_not_shown(tmp_path: Path) -> None:
    """Without a header line the names would be the values of the first record."""
    fault = refused(tmp_path, "77,3.25,secret,188,f\n20,1,a,1,m\n", "none of the 5 columns")
    assert not any(value in str(fault) for value in ("77", "3.25", "secret", "188"))


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    for path in ("none.csv", "."):
        with pytest.raises(Refusal) as caught:
            read_records(Source(path=path), SCHEMA, tmp_path)
        assert caught.value.code is Code.FILE_MISSING


def test_an_unknown_kind_of_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="nearest is 'table'"):
        read_records(Source(path="x", kind="tabel"), SCHEMA, tmp_path)


@pytest.mark.parametrize(
    "settings", [{"delimiter": ""}, {"delimiter": ",,"}, {"delimiter": '"'}, {"columns": ("a", "a")}]
)
def test_a_source_that_cannot_be_read_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(Refusal):
        Source(path="x", **settings)  # type: ignore[arg-type]


def test_a_record_keeps_its_id_wherever_it_stands_and_whatever_the_job_reads(tmp_path: Path) -> None:
    """Must: same part of the split for every job. Must not: follow line numbers or the choice of columns."""
    rows = [f"{20 + i},1,a,{100 + i},f" for i in range(50)]
    first = read(tmp_path, HEAD + "\n".join(rows)).records
    second = read(tmp_path, HEAD + "\n".join(reversed(rows[:40]))).records
    assert set(second.ids) == set(first.ids[:40])
    narrow = Schema(features=(Feature(name="dose", range=(0.0, 10.0)),), label=Label(column="score", above=0.0))
    third = read_records(Source(path="site.csv"), narrow, tmp_path).records
    assert third.ids == second.ids
    key = b"k" * 16
    assert set(split(third, key, 0.5)[1].ids) <= set(split(first, key, 0.5)[1].ids)


def test_the_rows_of_one_person_share_an_id(tmp_path: Path) -> None:
    content = "person,age,dose,kind,score,sex\np1,20,1,a,1,f\np2,20,1,a,1,f\np1,21,1,b,1,f\n"
    ids = read(tmp_path, content, id="person").records.ids
    assert ids[0] == ids[2] != ids[1]
    refused(tmp_path, HEAD + "20,1,a,1,f\n", "Column 'person' not found", id="person")


@given(
    content=some.binary(max_size=200)
    | some.text(max_size=200).map(lambda text: (HEAD + text).encode("utf-8", "replace"))
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_read_or_refused_and_never_end_in_another_error(tmp_path: Path, content: bytes) -> None:
    with contextlib.suppress(Refusal):
        assert np.isfinite(read(tmp_path, content).records.inputs.numpy()).all()


@given(values=some.lists(some.floats(-1e6, 1e6), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_number_lands_in_the_public_range(tmp_path: Path, values: list[float]) -> None:
    found = read(tmp_path, HEAD + "".join(f"{value!r},1,a,1,f\n" for value in values))
    scaled = found.records.inputs[:, 0].numpy()
    assert np.allclose(scaled, (np.clip(values, 20, 80) - 50) / 30, atol=1e-6)


def test_what_was_counted_is_not_printed(tmp_path: Path) -> None:
    assert repr(read(tmp_path, HEAD + "10,?,a,1,f\n")) == "Reading()"

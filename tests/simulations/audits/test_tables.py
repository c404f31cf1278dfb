"""A table of predictions is read completely or refused with its line, never with its value."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from simulations.audits.tables import Columns, read

COLUMNS = Columns(label="y", score="p", sensitive=("sex",))


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "predictions.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_outcomes_are_counted_by_group(tmp_path: Path):
    tally = read(write(tmp_path, "sex,y,p\nf,1,0.5\nf,0,0.49\nm,1,0.2\n,0,1\n"), COLUMNS)
    assert tally.names() == ["sex=f", "sex=m", "sex=unknown"]
    assert tally.counts.tolist() == [[[1, 0], [0, 1]], [[0, 0], [1, 0]], [[0, 1], [0, 0]]]
    assert tally.noise == 0


def test_the_threshold_itself_is_positive(tmp_path: Path):
    path = write(tmp_path, "sex,y,p\nf,1,0.7\nf,1,0.69\n")
    tally = read(path, Columns(label="y", score="p", sensitive=("sex",), threshold=0.7))
    assert tally.counts.tolist() == [[[0, 0], [1, 1]]]


def test_several_columns_make_their_product_and_spreadsheets_are_read(tmp_path: Path):
    """A byte order mark, line ends of Windows, quotes, blanks around values and true/false."""
    text = '\ufeffsex , age,y,p\r\n" f ",<40,TRUE,1\r\n"m, or x",60+,false,0\r\n'
    tally = read(write(tmp_path, text), Columns(label="y", score="p", sensitive=("sex", "age")))
    assert tally.cells == (("f", "<40"), ("m, or x", "60+"))


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", Code.DATA_INVALID, "empty"),
        ("sex,y,p\n", Code.DATA_INVALID, "no rows"),
        ("sex,y,q\nf,1,1\n", Code.CONFIG_INVALID, "No column 'p'"),
        ("sexx,y,p\nf,1,1\n", Code.CONFIG_INVALID, "the nearest is 'sexx'"),
        ("sex,y,p,p\nf,1,1,1\n", Code.DATA_INVALID, "twice"),
        ("sex,y,p\nf,1,1\nf,2,1\n", Code.DATA_INVALID, "Line 3, column 'y'"),
        ("sex,y,p\nf,1,1\nf,1,high\n", Code.DATA_INVALID, "Line 3, column 'p'"),
        ("sex,y,p\nf,1,nan\n", Code.DATA_INVALID, "Line 2, column 'p'"),
        ("sex,y,p\nf,1,inf\n", Code.DATA_INVALID, "Line 2, column 'p'"),
        ("sex,y,p\nf,,1\n", Code.DATA_INVALID, "Line 2, column 'y'"),
        ("sex,y,p\nf,1\n", Code.DATA_INVALID, "2 fields, the header 3"),
        ('sex,y,p\n"f,1,1\n', Code.DATA_INVALID, "not read"),
        (b"sex,y,p\n\xff,1,1\n", Code.DATA_INVALID, "UTF-8"),
    ],
)
def test_a_bad_table_is_refused(tmp_path: Path, text: str | bytes, code: Code, words: str):
    with pytest.raises(Refusal) as caught:
        read(write(tmp_path, text), COLUMNS)
    assert caught.value.code is code
    assert words in str(caught.value)


def test_a_refusal_never_holds_the_value(tmp_path: Path):
    with pytest.raises(Refusal) as caught:
        read(write(tmp_path, "sex,y,p\nf,secret-7,1\n"), COLUMNS)
    assert "secret" not in str(caught.value)


def test_numbers_are_no_groups(tmp_path: Path):
    rows = "".join(f"{i},1,1\n" for i in range(101))
    with pytest.raises(Refusal, match="101 groups"):
        read(write(tmp_path, f"sex,y,p\n{rows}"), COLUMNS)


def test_a_missing_file_and_missing_columns_are_refused(tmp_path: Path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(Refusal) as caught:
            read(path, COLUMNS)
        assert caught.value.code is Code.FILE_MISSING
    with pytest.raises(Refusal, match="No groups"):
        Columns(label="y", score="p", sensitive=())
    with pytest.raises(Refusal, match="Threshold"):
        Columns(label="y", score="p", sensitive=("sex",), threshold=float("nan"))


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes):
    path = write(tmp_path_factory.mktemp("any"), b"sex,y,p\n" + data)
    try:
        rows = read(path, COLUMNS).counts.sum()
    except Refusal as refusal:
        rows = refusal.code is Code.DATA_INVALID
    assert rows >= 1

"""Frames: what was packed is read back, and nothing else is."""

from __future__ import annotations

from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.frames import VERSION, Frame, pack, unpack


class Note(Frame, frozen=True, kw_only=True):
    text: str
    count: Annotated[int, msgspec.Meta(ge=0)]
    blob: bytes = b""
    inner: tuple[int, ...] = ()


NOTE = Note(text="record of Ms Doe", count=3, blob=b"\1\2", inner=(1, 2))


def refused(data: bytes, limit: int = 1000) -> Code:
    with pytest.raises(Refusal) as found:
        unpack(Note, data, limit)
    return found.value.code


@given(st.builds(Note, text=st.text(), count=st.integers(0, 2**63 - 1), blob=st.binary()))
def test_what_was_packed_is_read_back(note: Note) -> None:
    assert unpack(Note, pack(note), 2**20) == note


@given(st.binary(max_size=64))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    for body in (data, b"HF\x01" + data):
        assert refused(body) in (Code.MESSAGE_INVALID, Code.MESSAGE_VERSION)


def test_the_limit_counts_every_byte() -> None:
    data = pack(NOTE)
    assert unpack(Note, data, len(data)) == NOTE
    assert refused(data, len(data) - 1) is Code.MESSAGE_TOO_LARGE


def test_another_mark_or_version_is_refused() -> None:
    data = pack(NOTE)
    assert data[2] == VERSION
    assert refused(b"HG" + data[2:]) is Code.MESSAGE_INVALID
    assert refused(b"HF" + bytes([VERSION + 1]) + data[3:]) is Code.MESSAGE_VERSION
    for short in (b"", b"H", b"HF"):
        assert refused(short) is Code.MESSAGE_INVALID


def test_defaults_are_written_out_so_that_there_is_one_spelling() -> None:
    short = b"HF\x01" + msgspec.msgpack.encode({"count": 3, "text": "a"})
    assert refused(short) is Code.MESSAGE_INVALID


def test_a_frame_prints_no_field_and_cannot_be_changed() -> None:
    assert repr(NOTE) == str(NOTE) == "Note"
    with pytest.raises(AttributeError):
        NOTE.count = 4  # type: ignore[misc]

"""The file of a run's rounds: it grows, it is cut where a checkpoint says, and no crash costs a settled row."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from deploy.host import rounds_of
from server.live_rounds import LiveRounds, rows_at

ROWS: list[dict[str, Any]] = [{"round": n, "loss": 0.1 * n, "sites": ["a", "ü"]} for n in range(1, 7)]


def file_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("count", range(7))
def test_every_cut_gives_back_the_rows_of_its_moment(tmp_path: Path, count: int) -> None:
    """Also while the file holds more: rounds that were played after the checkpoint, and half a line."""
    live, path = LiveRounds(tmp_path / "rounds.jsonl"), tmp_path / "rounds.jsonl"
    cuts = [live.keep(ROWS[:number]) for number in range(len(ROWS) + 1)]
    assert file_of(path) == ROWS
    with path.open("ab") as file:
        file.write(b'{"round": 7, "lo')
    assert list(rows_at(path, asdict(cuts[count]))) == ROWS[:count]
    assert list(rows_at(path, json.loads(json.dumps(asdict(cuts[count]))))) == ROWS[:count]


def test_the_newest_row_may_change_and_a_settled_one_keeps_its_bytes(tmp_path: Path) -> None:
    live, path = LiveRounds(tmp_path / "rounds.jsonl"), tmp_path / "rounds.jsonl"
    before = live.keep(ROWS[:3])
    settled = path.read_bytes()[: before.size]
    counted = {**ROWS[2], "accuracy": 0.75}
    after = live.keep([*ROWS[:2], counted])
    assert file_of(path) == [*ROWS[:2], counted]
    assert list(rows_at(path, asdict(after))) == [*ROWS[:2], counted]
    assert list(rows_at(path, asdict(before))) == ROWS[:3], "a crash before the checkpoint goes back to the old row"
    live.keep([*ROWS[:2], counted, ROWS[3]])
    assert path.read_bytes().startswith(settled)
    assert list(rows_at(path, asdict(before))) == ROWS[:3]


def test_a_run_that_goes_on_continues_the_file_it_finds(tmp_path: Path) -> None:
    """Must: mend a line that a crash cut. Must not: touch what an older checkpoint still relies on."""
    path = tmp_path / "rounds.jsonl"
    first = LiveRounds(path)
    first.keep([])
    for number in range(1, 5):
        cut = first.keep(ROWS[:number])
    path.write_bytes(path.read_bytes()[:-9])
    rows = rows_at(path, asdict(cut))
    again = LiveRounds(path)
    assert again.keep(rows) == cut
    assert file_of(path) == ROWS[:4]
    assert list(rows_at(path, asdict(again.keep([*rows, ROWS[4]])))) == ROWS[:5]
    assert file_of(path) == ROWS[:5]


def test_what_a_round_writes_does_not_grow_with_the_rounds_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    live = LiveRounds(tmp_path / "rounds.jsonl")
    live.keep([])
    true = LiveRounds._replace_end

    def counting(self: LiveRounds, lines: bytes) -> None:
        written.append(len(lines))
        true(self, lines)

    monkeypatch.setattr(LiveRounds, "_replace_end", counting)
    rows: list[dict[str, Any]] = []
    for number in range(300):
        rows.append({"round": 1000 + number, "sites": ["a"] * 20})
        live.keep(rows)
        live.keep(rows)  # an attempt that failed is saved too, and no row is new
    assert len(written) == 300
    assert max(written[2:]) == written[2]


@given(st.integers(0, 10**6), st.sampled_from(["cut", "flip", "gone"]))
def test_rounds_that_are_not_those_of_the_checkpoint_are_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, how: str
) -> None:
    path = tmp_path_factory.mktemp("live") / "rounds.jsonl"
    cut = LiveRounds(path).keep(ROWS)
    data = bytearray(path.read_bytes()[: cut.size])
    place %= cut.size
    if how == "flip":
        data[place] ^= 0x01
    path.write_bytes(bytes(data[:place] if how == "cut" else data))
    if how == "gone":
        path.unlink()
    with pytest.raises(Refusal) as refused:
        rows_at(path, asdict(cut))
    assert refused.value.code is Code.CONFIG_INVALID
    assert "hushfed server discard" in refused.value.do


def test_a_crash_while_a_row_is_written_costs_nothing_that_was_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rounds.jsonl"
    live = LiveRounds(path)
    cut = live.keep(ROWS[:1])
    cut = live.keep(ROWS[:2])

    def crash(_: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="disk"):
        live.keep(ROWS[:3])
    monkeypatch.undo()
    assert list(rows_at(path, asdict(cut))) == ROWS[:2]


def test_whoever_watches_sees_whole_lines_only(tmp_path: Path) -> None:
    (tmp_path / "rounds.jsonl").write_text('{"round": 1}\n{"round": 2}\n{"rou')
    assert [row["round"] for row in rounds_of(tmp_path)] == [1, 2]
    (tmp_path / "rounds.jsonl").write_text('{"rou')
    assert rounds_of(tmp_path) == []

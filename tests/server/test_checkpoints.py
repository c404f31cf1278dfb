"""Checkpoints: whole or not at all, and only of the run that is resumed."""

from __future__ import annotations

import json
import math
import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save as sealed

from common.errors import Code, Refusal
from server.checkpoints import State, load_checkpoint, save_checkpoint
from server.durable import write_whole
from server.live_rounds import LiveRounds

STATE = State(
    parameters=np.array([1.5, -0.0, 3e-38], np.float32),
    memory={"mean": np.array([0.1, 0.2, 0.3]), "square": np.zeros(3)},
    rounds=({"round": 1, "loss": 0.5, "sites": ["clinic-a"]},),
    spent={"train": 2},
    heads={1: "00" * 32, 3: "11" * 32},
    epsilon={1: 0.25, 3: math.inf},
    excluded={2: "BUDGET_EXHAUSTED"},
    evaluated=1,
    evaluation={"counts": [[[1, 2]]]},
    seconds=3.5,
    clip=0.75,
    noise=np.array([[0.5, -0.25, 3.0], [1e-9, 2.0, 0.0]]),
)


def same(one: State, two: State) -> bool:
    plain = all(
        getattr(one, each.name) == getattr(two, each.name)
        for each in fields(State)
        if each.name not in ("parameters", "memory", "noise")
    )
    arrays = one.parameters.tobytes() == two.parameters.tobytes() and one.memory.keys() == two.memory.keys()
    arrays = arrays and np.array_equal(one.noise, two.noise)
    return plain and arrays and all(np.array_equal(one.memory[key], two.memory[key]) for key in one.memory)


def save(path: Path, state: State) -> None:
    save_checkpoint(path, state, "run", LiveRounds(live(path)).keep(state.rounds))


def live(path: Path) -> Path:
    return path.with_name("rounds.jsonl")


def refused(path: Path, run: str = "run") -> Code:
    with pytest.raises(Refusal) as found:
        load_checkpoint(path, run, live(path))
    return found.value.code


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    save(tmp_path / "c", STATE)
    again = load_checkpoint(tmp_path / "c", "run", live(tmp_path / "c"))
    assert same(again, STATE)
    assert again.parameters.dtype == np.float32
    assert again.memory["mean"].dtype == np.float64
    assert not again.rounds[0].get("accuracy")


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "c", STATE)
    assert refused(tmp_path / "c", "other") is Code.RUN_UNKNOWN
    assert refused(tmp_path / "none") is Code.FILE_MISSING


@given(st.integers(0, 10**6), st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_truncated_checkpoint_is_refused_and_a_damaged_one_never_breaks_the_reader(
    tmp_path: Path, place: int, cut: bool
) -> None:
    path = tmp_path / "c"
    save(path, STATE)
    data = bytearray(path.read_bytes())
    if cut:
        path.write_bytes(bytes(data[: place % len(data)]))
        assert refused(path) is Code.CONFIG_INVALID
        return
    data[place % len(data)] ^= 0xFF
    path.write_bytes(bytes(data))
    code = None
    try:
        load_checkpoint(path, "run", live(path))
    except Refusal as refusal:
        code = refusal.code
    assert code in (None, Code.CONFIG_INVALID, Code.RUN_UNKNOWN)


@pytest.mark.parametrize(
    ("arrays", "state"),
    [
        ({"other": np.zeros(1, np.float32)}, "{}"),
        ({"parameters": np.zeros(1, np.float32)}, "{}"),
        ({"parameters": np.zeros(1, np.float32)}, "[]"),
        ({"parameters": np.zeros(1, np.float32)}, "not json"),
        ({"parameters": np.zeros(1, np.float32)}, json.dumps({"rounds": [], "spent": {}, "heads": []})),
    ],
)
def test_a_checkpoint_that_lacks_a_part_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], state: str) -> None:
    path = tmp_path / "c"
    path.write_bytes(sealed(arrays, {"schema": "2", "run": "run", "state": state}))
    assert refused(path) is Code.CONFIG_INVALID
    path.write_bytes(sealed(arrays))
    assert refused(path) is Code.CONFIG_INVALID


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_crash_leaves_the_old_file_whole(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c"
    save(path, STATE)

    def crash(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    if moment == "replace":
        monkeypatch.setattr(Path, "replace", crash)
    elif moment == "fsync":
        monkeypatch.setattr(os, "fsync", crash)
    else:
        monkeypatch.setattr(Path, "open", crash)
    with pytest.raises(OSError, match="disk"):
        save(path, replace(STATE, seconds=99.0))
    monkeypatch.undo()
    assert same(load_checkpoint(path, "run", live(path)), STATE)
    save(path, replace(STATE, seconds=99.0))  # what a crash left behind is no hindrance
    assert load_checkpoint(path, "run", live(path)).seconds == 99.0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c", "rounds.jsonl"]


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", b"one")
    write_whole(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"two"


def test_a_charge_replaces_what_the_site_said_before() -> None:
    state = STATE.charged(1, bytes([2]) * 32, 0.5)
    assert state.heads[1] == "02" * 32
    assert state.epsilon == {1: 0.5, 3: math.inf}
    assert STATE.epsilon[1] == 0.25

"""The run directory: open formats, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import server.records
from common.errors import Code, Refusal
from common.identity import Signer
from common.parameters import Layout
from common.statement import opened, statement_of
from server.records import Record, signed_record, write_record

RECORD = Record(
    run={"status": "completed", "schema": 1},
    rounds=({"round": 1}, {"round": 2}),
    layout=Layout(("a.weight", "a.bias"), ((1, 2), (1,))),
    parameters=np.array([1, 2, 3], np.float32),
    ledgers={"clinic-a": b'{"body":{}}\n', "clinic-b": b""},
)


def test_a_run_directory_has_every_part_in_an_open_format(tmp_path: Path) -> None:
    folder = tmp_path / "result"
    folder.mkdir()  # an empty one is no hindrance
    write_record(folder, RECORD)
    assert json.loads((folder / "run.json").read_text()) == RECORD.run
    assert [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()] == list(RECORD.rounds)
    arrays = load_file(folder / "model.safetensors")
    assert arrays["a.weight"].tolist() == [[1.0, 2.0]]
    assert arrays["a.bias"].tolist() == [3.0]
    assert (folder / "ledgers" / "clinic-a.jsonl").read_bytes() == b'{"body":{}}\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == ["result"]


def test_a_folder_that_holds_anything_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(Refusal) as refused:
        write_record(tmp_path, RECORD)
    assert refused.value.code is Code.FILE_EXISTS
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_signed_record_states_what_its_files_hold(tmp_path: Path) -> None:
    signer = Signer.generate()
    run = {**RECORD.run, "run": "ab" * 16, "job": {}, "manifest": {}, "heads": {}, "noise": "system"}
    record = Record(**{**vars(RECORD), "run": run})
    write_record(tmp_path / "result", signed_record(record, signer))
    told = json.loads((tmp_path / "result" / "run.json").read_text())
    rows = [json.loads(line) for line in (tmp_path / "result" / "rounds.jsonl").read_text().splitlines()]
    model = (tmp_path / "result" / "model.safetensors").read_bytes()
    assert opened(told, signer.public) == statement_of(told, rows, model)
    assert {name: value for name, value in told.items() if name not in ("statement", "signature")} == run


@pytest.mark.parametrize("after", range(5))
def test_a_failure_in_the_middle_leaves_no_directory_and_can_be_repeated(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    real = server.records._write

    def failing(path: Path, data: bytes) -> None:
        if len(written) == after:
            raise OSError("the disk is full")
        written.append(path)
        real(path, data)

    monkeypatch.setattr(server.records, "_write", failing)
    with pytest.raises(OSError, match="disk"):
        write_record(tmp_path / "result", RECORD)
    assert not (tmp_path / "result").exists()
    monkeypatch.undo()
    write_record(tmp_path / "result", RECORD)
    assert (tmp_path / "result" / "run.json").exists()


def test_parameters_that_do_not_fit_the_layout_are_not_written(tmp_path: Path) -> None:
    wrong = Record(**{**vars(RECORD), "parameters": np.zeros(4, np.float32)})
    with pytest.raises(Refusal):
        write_record(tmp_path / "result", wrong)
    assert not (tmp_path / "result").exists()

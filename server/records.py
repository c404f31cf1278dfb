"""What a run leaves behind: one directory of open formats, written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from common.errors import Code, Refusal
from common.identity import Signer
from common.parameters import Layout, named
from common.statement import signed, statement_of

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Record:
    """The parts of a run directory that the coordinator knows.

    run      the content of run.json
    rounds   one object a round
    ledgers  public lines of each site's ledger, by site name
    central  public lines of the coordinator's own ledger, where it adds noise
    """

    run: Mapping[str, Any]
    rounds: tuple[Mapping[str, Any], ...]
    layout: Layout
    parameters: NDArray[np.float32]
    ledgers: Mapping[str, bytes]
    central: bytes | None = None

    @property
    def model(self) -> bytes:
        """The content of model.safetensors. Errors: Refusal UPDATE_INVALID."""
        return save(named(self.layout, self.parameters))


def signed_record(record: Record, coordinator: Signer) -> Record:
    """`record` with the coordinator's signed statement about all of it in run.json."""
    statement = statement_of(record.run, record.rounds, record.model)
    return replace(record, run={**record.run, **signed(statement, coordinator)})


def write_record(folder: Path, record: Record) -> None:
    """Write the run directory `folder`. Errors: Refusal FILE_EXISTS if it holds anything; then it stays as it was."""
    if folder.exists() and any(folder.iterdir()):
        raise Refusal(Code.FILE_EXISTS, f"{folder} not written", "it is not empty", "Choose another folder")
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    (part / "ledgers").mkdir(parents=True)
    _write(part / "run.json", json.dumps(record.run, indent=2, sort_keys=True).encode() + b"\n")
    _write(part / "rounds.jsonl", b"".join(json.dumps(row, sort_keys=True).encode() + b"\n" for row in record.rounds))
    _write(part / "model.safetensors", record.model)
    if record.central is not None:
        _write(part / "coordinator.jsonl", record.central)
    for site, lines in record.ledgers.items():
        _write(part / "ledgers" / f"{site}.jsonl", lines)
    if folder.exists():
        folder.rmdir()
    part.replace(folder)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

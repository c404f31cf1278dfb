"""A finished run as its directory tells it; the audits read nothing else."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config import canonical
from common.errors import Code, Refusal
from simulations.audits.shape import check_facts, check_round, invalid, read_object
from simulations.naming import site_names

SCHEMA = 1
MOST_BYTES = 2**30  # of one file of a record; models of 10^8 parameters pass
MOST_LISTED = 64  # sites of a population that are told one by one
HISTORY = "history.safetensors"  # of a run with canaries: the model before the first round and after each


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run wrote down.

    facts    run.json: job, versions, seeds, manifest, ledger heads, evaluation, the coordinator's signed statement; of
             a world whose sums were formed without masks its population and what was planned, instead of a manifest
    rounds   rounds.jsonl, in order
    ledgers  public ledger of each site by name, as bytes; a site whose file is missing is missing here
    model    content of model.safetensors; None if the file is missing
    central  coordinator.jsonl, its own ledger; None where there is none
    The forms that `shape.py` names are checked, and nothing else is.
    """

    folder: Path
    facts: Mapping[str, Any]
    rounds: tuple[Mapping[str, Any], ...]
    ledgers: Mapping[str, bytes] = field(repr=False)
    model: bytes | None = field(default=None, repr=False)
    central: bytes | None = field(default=None, repr=False)

    @property
    def exact(self) -> bool:
        """Whether its sums were formed without masks: then there are no keys, no ledgers and no manifest."""
        return self.facts["manifest"] is None

    @property
    def size(self) -> int:
        """How many sites there are, whether they were asked or not."""
        return int(self.facts["population"]) if self.exact else len(self.facts["manifest"]["sites"])

    @property
    def listed(self) -> bool:
        """Whether its sites are told one by one: those of a manifest, and those of a small population."""
        return not self.exact or self.size <= MOST_LISTED

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in their order; none where they are not told one by one."""
        if not self.exact:
            return [str(site["name"]) for site in self.facts["manifest"]["sites"]]
        names = str(self.facts["world"]["settings"].get("names", "site"))
        return list(site_names(names, self.size)) if self.listed else []


def read_run(folder: Path) -> Run:
    """The run in `folder`.

    Errors: Refusal FILE_MISSING if it is no run directory; RUN_FAILED if the run did not complete; DATA_INVALID if a
    file does not have the form that this version writes, or is no plain file of at most MOST_BYTES.
    """
    facts = read_object(_text(folder / "run.json"), "run.json")
    if facts.get("schema") != SCHEMA:
        raise invalid("run.json", f"its schema is not {SCHEMA}", "Use the version of hushfed that wrote it")
    if facts.get("status") != "completed":
        raise Refusal(
            Code.RUN_FAILED, f"{folder} not audited", "the run did not complete", "Resume the run, then audit it"
        )
    check_facts(facts)
    lines = _text(folder / "rounds.jsonl").splitlines()
    rounds = tuple(_round(line, f"rounds.jsonl, line {i}") for i, line in enumerate(lines, 1) if line.strip())
    files = sorted((folder / "ledgers").glob("*.jsonl"))
    model, central = folder / "model.safetensors", folder / "coordinator.jsonl"
    return Run(
        folder=folder,
        facts=facts,
        rounds=rounds,
        ledgers={file.stem: _content(file) for file in files},
        model=_content(model) if model.exists() else None,
        central=_content(central) if central.exists() else None,
    )


def figure(value: object) -> float:
    """A number of a record as float; NaN, which no comparison accepts, for everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def digest_of(value: object) -> str | None:
    """SHA-256 of a record's value in canonical form, hex; None if it has no such form."""
    try:
        return hashlib.sha256(canonical(value)).hexdigest()
    except (Refusal, RecursionError):
        return None


def artifacts(run: Run) -> list[dict[str, Any]]:
    """Name, size in bytes and SHA-256 of every file that the run itself wrote."""
    ledgers = [f"ledgers/{name}.jsonl" for name in run.ledgers]
    names = ["run.json", "rounds.jsonl", "model.safetensors", HISTORY, "coordinator.jsonl", *ledgers]
    found = [(name, run.folder / name) for name in names if (run.folder / name).is_file()]
    return [
        {"name": name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in found
    ]


def _round(line: str, place: str) -> dict[str, Any]:
    row = read_object(line, place)
    check_round(row, place)
    return row


def _text(path: Path) -> str:
    try:
        return _content(path).decode("utf-8")
    except UnicodeDecodeError:
        raise invalid(path.name, "it is not UTF-8 text", "Use the directory as it was written") from None


def _content(path: Path) -> bytes:
    """Bytes of a plain file of bearable size: a device or a pipe has no end."""
    try:
        if path.exists() and not path.is_file():
            raise invalid(path.name, "it is no plain file", "Use the directory as it was written")
        if path.stat().st_size > MOST_BYTES:
            raise invalid(path.name, f"it is larger than {MOST_BYTES} bytes", "Use the directory as it was written")
        return path.read_bytes()
    except OSError:
        why = f"{path.parent} is no directory of a finished run"
        raise Refusal(Code.FILE_MISSING, f"{path.name} not read", why, "Give the directory that a run wrote") from None

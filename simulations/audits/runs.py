"""A finished run as its directory tells it; the audits read nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import Code, Refusal

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run wrote down.

    facts    run.json: job, versions, seeds, manifest, ledger heads, evaluation
    rounds   rounds.jsonl, in order
    ledgers  public ledger of each site by name, as bytes; a site whose file is missing is missing here
    """

    folder: Path
    facts: Mapping[str, Any]
    rounds: tuple[Mapping[str, Any], ...]
    ledgers: Mapping[str, bytes] = field(repr=False)

    @property
    def sites(self) -> list[str]:
        """Names of the manifest's sites, in its order."""
        return [str(site["name"]) for site in self.facts["manifest"]["sites"]]


def read_run(folder: Path) -> Run:
    """The run in `folder`.

    Errors: Refusal FILE_MISSING if it is no run directory; RUN_FAILED if the run did not complete; DATA_INVALID if a
    file does not have the form that this version writes.
    """
    facts = _object(_text(folder / "run.json"), "run.json")
    if facts.get("schema") != SCHEMA:
        raise _invalid("run.json", f"its schema is not {SCHEMA}", "Use the version of hushfed that wrote it")
    if facts.get("status") != "completed":
        raise Refusal(
            Code.RUN_FAILED, f"{folder} not audited", "the run did not complete", "Resume the run, then audit it"
        )
    _check(facts)
    lines = _text(folder / "rounds.jsonl").splitlines()
    rounds = tuple(_object(line, f"rounds.jsonl, line {i}") for i, line in enumerate(lines, 1) if line.strip())
    files = sorted((folder / "ledgers").glob("*.jsonl"))
    return Run(folder=folder, facts=facts, rounds=rounds, ledgers={file.stem: file.read_bytes() for file in files})


def artifacts(run: Run) -> list[dict[str, Any]]:
    """Name, size in bytes and SHA-256 of every file that the run itself wrote."""
    names = ["run.json", "rounds.jsonl", "model.safetensors", *(f"ledgers/{name}.jsonl" for name in run.ledgers)]
    found = [(name, run.folder / name) for name in names if (run.folder / name).is_file()]
    return [
        {"name": name, "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for name, path in found
    ]


def _check(facts: Mapping[str, Any]) -> None:
    """Refuse facts without the keys that the audits cannot do without."""
    for name, kind in (("run", str), ("job", dict), ("manifest", dict), ("heads", dict)):
        if not isinstance(facts.get(name), kind):
            raise _invalid("run.json", f"{name!r} is missing or of another type", "Use the directory as it was written")
    sites = facts["manifest"].get("sites")
    if not isinstance(sites, list) or not all(isinstance(s, dict) and {"name", "identity"} <= s.keys() for s in sites):
        raise _invalid("run.json", "its manifest names no sites", "Use the directory as it was written")


def _object(text: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _invalid(place, "it is no JSON object", "Use the directory as it was written")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        why = f"{path.parent} is no directory of a finished run"
        raise Refusal(Code.FILE_MISSING, f"{path.name} not read", why, "Give the directory that a run wrote") from None
    except UnicodeDecodeError:
        raise _invalid(path.name, "it is not UTF-8 text", "Use the directory as it was written") from None


def _invalid(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.DATA_INVALID, f"{what} not read", why, do)

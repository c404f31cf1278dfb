"""Whether a run's record is the one that the manifest's coordinator signed, and its manifest and heads those known."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.config import plain
from common.errors import Code, Refusal
from common.secagg.manifest import Manifest, read_manifest
from common.statement import Statement, opened, statement_of
from simulations.audits.accounts import Account
from simulations.audits.problems import Finding, Problem
from simulations.audits.runs import Run, digest_of

_PROBLEMS = {"rounds": Problem.ROUNDS_MISMATCH, "rows": Problem.ROUNDS_MISMATCH, "model": Problem.MODEL_MISMATCH}
_NAMES = {
    "run": "the run's name",
    "job": "the job",
    "manifest": "the manifest",
    "heads": "the heads",
    "fingerprints": "the fingerprints of the data",
    "rounds": "the number of rounds",
    "rows": "rounds.jsonl",
    "model": "model.safetensors",
    "evaluation": "the evaluation",
    "rest": "something else in run.json",
}


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """What an auditor knows from elsewhere, and a run cannot make up.

    manifest  as governance signed it      heads  of ledgers, hex by site name, as their keepers noted them
    """

    manifest: Manifest | None = None
    heads: Mapping[str, str] = field(default_factory=dict)


NOTHING = Anchors()


def read_anchors(manifest: Path | None, governance: str | None, heads: Path | None) -> Anchors:
    """The anchors in an auditor's own files. governance: the key in hex, or a file that holds it.

    Errors: Refusal E_SIG, E_MANIFEST, FILE_MISSING, CONFIG_INVALID, DATA_INVALID: an anchor that does not hold is the
    auditor's to mend, and no fault of the run.
    """
    if (manifest is None) != (governance is None):
        raise Refusal(
            Code.CONFIG_INVALID,
            "Nothing audited",
            "a manifest is believed only with the key that signed it",
            "Give --manifest FILE and --governance KEY together",
        )
    known = _believed(manifest, _public_key(governance)) if manifest and governance else None
    return Anchors(manifest=known, heads=_noted(heads) if heads else {})


def unsigned(run: Run) -> Iterator[Finding]:
    """What of the record the coordinator did not sign."""
    try:
        statement = opened(run.facts, _coordinator(run))
    except Refusal as refusal:
        yield Finding(Problem.RECORD_UNSIGNED, "", f"{refusal.what}: {refusal.why}")
        return
    try:
        found = plain(statement_of(run.facts, run.rounds, run.model or b""))
    except Refusal as refusal:
        yield Finding(Problem.RECORD_MISMATCH, "", f"{refusal.what}: {refusal.why}")
        return
    for name in _differing(statement, found):
        if name != "model" or run.model is not None:
            problem = _PROBLEMS.get(name, Problem.RECORD_MISMATCH)
            yield Finding(problem, "", f"{_NAMES[name]}: not what the coordinator signed")


def unanchored(run: Run, accounts: Iterable[Account], anchors: Anchors) -> Iterator[Finding]:
    """What contradicts the auditor's own anchors."""
    if anchors.manifest is not None and anchors.manifest.digest.hex() != digest_of(run.facts["manifest"]):
        yield Finding(Problem.MANIFEST_MISMATCH, "", "the run's manifest is not the one that governance signed")
    places = {account.site: account.places for account in accounts}
    for site, head in anchors.heads.items():
        if head not in places.get(site, ()):
            yield Finding(Problem.HEAD_MISMATCH, site, f"the head {head[:16]}… that was noted is not in its ledger")


def _differing(statement: Statement, found: Mapping[str, object]) -> list[str]:
    return [name for name, value in plain(statement).items() if value != found[name]]


def _coordinator(run: Run) -> bytes:
    """The coordinator's public key; of the run's own manifest, which only an anchor makes trustworthy.

    Where there is no manifest, the key that the simulation made for the run: it shows that the record is whole.
    """
    key = run.facts["world"].get("signed_by") if run.exact else run.facts["manifest"].get("coordinator")
    try:
        return bytes.fromhex(key) if isinstance(key, str) else b""
    except ValueError:
        return b""


def _believed(file: Path, key: bytes) -> Manifest:
    try:
        return read_manifest(file, key)
    except Refusal as refusal:
        if refusal.code is not Code.E_SIG:
            raise
        raise Refusal(
            Code.E_SIG,
            f"{file} not believed",
            "the key given with --governance did not sign it",
            "Ask governance for its key and for the manifest in force, not whoever gave you the run",
        ) from None


def _public_key(text: str) -> bytes:
    """A key in hex, or in a file of hex."""
    file = Path(text)
    words = _content(file) if len(text) != 64 and file.is_file() else text
    with contextlib.suppress(ValueError):
        if len(key := bytes.fromhex(words.strip())) == 32:
            return key
    why = "it is neither 64 hex digits of an Ed25519 key nor a file that holds them"
    raise Refusal(Code.CONFIG_INVALID, "--governance not read", why, "Give either of them")


def _noted(path: Path) -> dict[str, str]:
    try:
        table = json.loads(_content(path))
        heads = {site: bytes.fromhex(head).hex() for site, head in table.items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        heads = {}
    if not heads or any(len(head) != 64 for head in heads.values()):
        why = 'it is no JSON object of heads, such as {"clinic-a": "64 hex digits"}'
        raise Refusal(Code.DATA_INVALID, f"{path} not read", why, "Write down each site's head as its keeper noted it")
    return heads


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise Refusal(Code.FILE_MISSING, f"{path} not read", "it cannot be opened as text", "Check the path") from None

"""What the coordinator signs of a finished run, so that nobody can change, shorten or swap its record unseen."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from common.config import canonical, load, plain
from common.errors import Code, Refusal
from common.identity import Signer, verify

SCHEMA = 1
CONTEXT = b"hushfed/record/v1\0"
_APART = frozenset({"run", "job", "manifest", "heads", "fingerprints", "evaluation", "statement", "signature"})


@dataclass(frozen=True, kw_only=True)
class Acknowledged:
    """The last line of a site's ledger that the coordinator knows, and what the site had spent at it; null: void."""

    head: str
    epsilon: float | None


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A finished run in digests: SHA-256 of canonical forms, in hex.

    run           as every order named it
    job           `Job.digest`            manifest    `Manifest.digest`
    heads         by site name            fingerprints  of the records that each site used, by site name
    rounds, rows  how many rounds there were, and what rounds.jsonl says of them
    model         of the bytes of model.safetensors
    evaluation    of the counts, also when there are none
    rest          of everything else in run.json
    """

    schema: int
    run: str
    job: str
    manifest: str
    heads: dict[str, Acknowledged]
    fingerprints: dict[str, str]
    rounds: int
    rows: str
    model: str
    evaluation: str
    rest: str


def statement_of(run: Mapping[str, Any], rounds: Iterable[Mapping[str, Any]], model: bytes) -> Statement:
    """The statement about a run's record: run.json, the objects of rounds.jsonl, and the bytes of the model's file.

    All of them is in it but the statement itself and its signature.
    Errors: Refusal CONFIG_INVALID for a value without a canonical form or of a wrong type.
    """
    rows = [dict(row) for row in rounds]
    rest = {name: value for name, value in run.items() if name not in _APART}
    table = {
        "schema": SCHEMA,
        "run": run["run"],
        "job": _digest(run["job"]),
        "manifest": _digest(run["manifest"]),
        "heads": run["heads"],
        "fingerprints": run.get("fingerprints") or {},
        "rounds": len(rows),
        "rows": _digest(rows),
        "model": hashlib.sha256(model).hexdigest(),
        "evaluation": _digest(run.get("evaluation")),
        "rest": _digest(rest),
    }
    return load(Statement, table)


def signed(statement: Statement, coordinator: Signer) -> dict[str, Any]:
    """The entries `statement` and `signature` of run.json."""
    table = plain(statement)
    return {"statement": table, "signature": coordinator.sign(CONTEXT, canonical(table)).hex()}


def opened(run: Mapping[str, Any], coordinator: bytes) -> Statement:
    """The statement in run.json, if the key `coordinator` signed it.

    Errors: Refusal E_SIG if another key signed it, or nobody; CONFIG_INVALID if it is no statement of this version.
    """
    table, signature = run.get("statement"), run.get("signature")
    if not isinstance(table, dict) or not isinstance(signature, str):
        raise Refusal(
            Code.E_SIG, "Record not verified", "it holds no signed statement", "Ask the coordinator for its own record"
        )
    try:
        verify(coordinator, bytes.fromhex(signature), CONTEXT, _canonical(table))
    except ValueError:
        raise Refusal(
            Code.E_SIG, "Record not verified", "its signature is no hex", "Ask the coordinator for its own record"
        ) from None
    statement = load(Statement, table, "statement")
    if statement.schema != SCHEMA or plain(statement) != table:
        raise Refusal(
            Code.CONFIG_INVALID, "Record not verified", "its statement has another form", "Use the newest version"
        )
    return statement


def _digest(value: Any) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()


def _canonical(value: Any) -> bytes:
    try:
        return canonical(value)
    except RecursionError:
        raise Refusal(
            Code.CONFIG_INVALID, "Value has no canonical form", "it is nested too deeply", "Use the record as written"
        ) from None

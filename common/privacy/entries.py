"""One line of a privacy ledger: its fields, its hash, its public form, and who signed it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from common.config import canonical, plain
from common.errors import Code, Refusal
from common.identity import Signer, verify
from common.privacy.mechanism import MechanismPlan, Partition

CONTEXT = b"hushfed/ledger/v1\0"
GENESIS = bytes(32)
LIMIT = 256 * 2**20  # bytes of a public ledger


class Kind(StrEnum):
    """What an entry says. Kinds are never removed and never change their meaning."""

    OPEN = "OPEN"  # a data set gets its ledger
    RESERVE = "RESERVE"  # steps are charged, before any record is read
    MARK = "MARK"  # so many steps of a reservation were executed, and the next ones may have been
    SETTLE = "SETTLE"  # the steps that were executed, and a commitment to what leaves
    ABORT = "ABORT"  # work ended without an output; the charge stands
    STOP = "STOP"  # work ended without an output; what counts are the steps up to the mark that would have come next
    BUDGET_CHANGE = "BUDGET_CHANGE"  # the keeper of the site changed what may be spent


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """Which order caused an entry.

    run, job, order, model  hex: name of the run, digests of its job, of the signed order, and of the parameters that
                            work started from
    number                  aggregation number
    """

    run: str = ""
    job: str = ""
    round: int = 0
    attempt: int = 0
    number: int = 0
    order: str = ""
    model: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """The body of a ledger's line. No count of records, no metric, nothing of a record is in it.

    seq             0, 1, 2, …                dataset   keyed hash of the data set's name, hex
    plan            whole, in a RESERVE       steps     reserved; executed in a MARK or SETTLE; counted in a STOP
    every           of a RESERVE: steps from one MARK to the next, written before more are executed; 0: none are written
    reserve         `seq` of the RESERVE that a MARK, SETTLE, ABORT or STOP is about
    output          salted SHA-256 of what left: the salt stays at the site, so nobody can test guesses
    epsilon_*       at this line's time, of all partitions; for information, null if void
    wall, elapsed   seconds since 1970, and of the site's monotonic clock
    """

    seq: int
    kind: Kind
    site: int
    dataset: str
    wall: float
    elapsed: float
    versions: dict[str, str] = field(default_factory=dict)
    facts: Facts | None = None
    partition: Partition | None = None
    plan_id: str = ""
    plan: MechanismPlan | None = None
    steps: int = 0
    every: int = 0
    reserve: int | None = None
    output: str = ""
    epsilon_before: float | None = None
    epsilon_after: float | None = None
    budget: float | None = None
    delta: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """An entry as it is kept: canonical body, hash that chains it to all before it, signature of the hash."""

    body: bytes
    hash: bytes
    signature: bytes

    def public(self) -> bytes:
        """One JSON line, canonical as its body is: body, hash, signature (hex)."""
        return b'{"body":%b,"hash":"%b","signature":"%b"}\n' % (
            self.body,
            self.hash.hex().encode(),
            self.signature.hex().encode(),
        )


def chained(previous: bytes, body: bytes) -> bytes:
    """The hash of a line: SHA-256(previous hash || SHA-256(canonical body))."""
    return hashlib.sha256(previous + hashlib.sha256(body).digest()).digest()


def signed(entry: Entry, previous: bytes, signer: Signer) -> Line:
    """`entry` as the line after the one whose hash is `previous`."""
    body = canonical({name: value for name, value in plain(entry).items() if value not in (None, "", {})})
    head = chained(previous, body)
    return Line(body, head, signer.sign(CONTEXT, head))


def parse_public(lines: bytes) -> list[Line]:
    """The lines of a public ledger, not yet verified. Errors: Refusal LEDGER_TAMPERED for what is no ledger."""
    if len(lines) > LIMIT:
        raise tampered("Ledger", f"it is larger than {LIMIT} bytes")
    return [_line(text, seq) for seq, text in enumerate(lines.splitlines())]


def head_of(lines: bytes) -> bytes:
    """Hash of the last line of a public ledger; 32 zero bytes if it has none."""
    parsed = parse_public(lines)
    return parsed[-1].hash if parsed else GENESIS


def check_signature(line: Line, public_key: bytes, seq: int) -> None:
    """Refuse a line that `public_key` did not sign. Errors: Refusal LEDGER_TAMPERED."""
    try:
        verify(public_key, line.signature, CONTEXT, line.hash)
    except Refusal:
        raise tampered(place(seq), "its signature is not by this site") from None


def place(seq: int) -> str:
    """Where an entry stands, counted from 1 as lines of every other file are."""
    return f"Line {seq + 1} of the ledger"


def tampered(what: str, why: str) -> Refusal:
    """The refusal of a ledger that cannot be relied on."""
    return Refusal(
        Code.LEDGER_TAMPERED, what, why, "Restore the ledger from its backup; without it nothing may be spent"
    )


def _line(text: bytes, seq: int) -> Line:
    try:
        table = json.loads(text)
        line = Line(canonical(table["body"]), bytes.fromhex(table["hash"]), bytes.fromhex(table["signature"]))
        if line.public() != text + b"\n":
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError, Refusal):
        raise tampered(place(seq), "it is not a line that a ledger writes") from None
    return line


def entry_of(body: bytes, seq: int) -> Entry:
    """The entry whose canonical form is `body`. Errors: Refusal LEDGER_TAMPERED."""
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise tampered(place(seq), "its fields are not those of an entry") from None


_DECODER = msgspec.json.Decoder(Entry, strict=True)

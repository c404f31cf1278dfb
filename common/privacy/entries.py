"""One line of a privacy ledger: its fields, its place in the chain, its public form, and who signed it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
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
    SETTLE = "SETTLE"  # the steps that were executed, and a commitment to what leaves
    ABORT = "ABORT"  # work ended without an output; the charge stands
    BUDGET_CHANGE = "BUDGET_CHANGE"  # the keeper of the site changed what may be spent


@dataclass(frozen=True, kw_only=True)
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


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The body of a ledger's line. No count of records, no metric, nothing of a record is in it.

    seq             0, 1, 2, …                dataset   keyed hash of the data set's name, hex
    plan            whole, in a RESERVE       steps     reserved, or executed in a SETTLE
    reserve         `seq` of the RESERVE that a SETTLE or ABORT answers
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
    reserve: int | None = None
    output: str = ""
    epsilon_before: float | None = None
    epsilon_after: float | None = None
    budget: float | None = None
    delta: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Line:
    """An entry as it is kept: canonical body, hash that chains it to all before it, signature of the hash."""

    body: bytes
    hash: bytes
    signature: bytes

    def public(self) -> bytes:
        """One JSON line: body, hash, signature (hex)."""
        table = {"body": json.loads(self.body), "hash": self.hash.hex(), "signature": self.signature.hex()}
        return canonical(table) + b"\n"


def chained(previous: bytes, body: bytes) -> bytes:
    """The hash of a line: SHA-256(previous hash || SHA-256(canonical body))."""
    return hashlib.sha256(previous + hashlib.sha256(body).digest()).digest()


def signed(entry: Entry, previous: bytes, signer: Signer) -> Line:
    """`entry` as the line after the one whose hash is `previous`."""
    body = canonical({name: value for name, value in plain(entry).items() if value not in (None, "", {})})
    place = chained(previous, body)
    return Line(body, place, signer.sign(CONTEXT, place))


def read_chain(lines: Iterable[Line]) -> list[Entry]:
    """The entries of `lines`, if each one follows from the one before it. Signatures are not checked here.

    Errors: Refusal LEDGER_TAMPERED for a changed, missing, repeated or reordered line.
    """
    return chain_of(lines).entries


def chain_of(lines: Iterable[Line]) -> Chain:
    """As `read_chain`, ready to go on."""
    previous, chain = GENESIS, Chain()
    for seq, line in enumerate(lines):
        place = chained(previous, line.body)
        if place != line.hash:
            raise tampered(_place(seq), "its hash does not follow from the line before it")
        chain.add(_entry(line.body, seq))
        previous = place
    return chain


class Chain:
    """Entries in order, each checked against those before it, whoever wrote them."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._plans: dict[str, MechanismPlan] = {}
        self._answered: set[int] = set()

    def add(self, entry: Entry) -> None:
        """Append `entry`. Errors: as `check`; then nothing is appended."""
        self.check(entry)
        if entry.plan is not None:
            self._plans[entry.plan_id] = entry.plan
        if entry.reserve is not None:
            self._answered.add(entry.reserve)
        self.entries.append(entry)

    def check(self, entry: Entry) -> None:
        """Refuse an entry that cannot be the next one. Errors: Refusal LEDGER_TAMPERED."""
        what = _place(len(self.entries))
        if entry.seq != len(self.entries) or (entry.kind is Kind.OPEN) != (entry.seq == 0):
            raise tampered(what, "its number or kind is out of order")
        if self.entries and (entry.site, entry.dataset) != (self.entries[0].site, self.entries[0].dataset):
            raise tampered(what, "it is of another site or data set")
        if entry.kind is Kind.RESERVE:
            self._check_plan(entry, what)
        if entry.kind in (Kind.SETTLE, Kind.ABORT):
            self._check_answer(entry, what)
        elif entry.reserve is not None or (entry.plan is not None and entry.kind is not Kind.RESERVE):
            raise tampered(what, "it has fields of another kind")

    def _check_plan(self, entry: Entry, what: str) -> None:
        plan = entry.plan
        if plan is None or plan.partition != entry.partition or entry.steps < 1:
            raise tampered(what, "its plan is missing or does not fit")
        known = self._plans.get(entry.plan_id)
        if plan != known and (known is not None or plan.plan_id != entry.plan_id):
            raise tampered(what, "its plan is not the one it names")

    def _check_answer(self, entry: Entry, what: str) -> None:
        seq = -1 if entry.reserve is None else entry.reserve
        reserve = self.entries[seq] if 0 <= seq < len(self.entries) else None
        if reserve is None or reserve.kind is not Kind.RESERVE or seq in self._answered:
            raise tampered(what, "it answers no open reservation")
        if not 0 <= entry.steps <= reserve.steps:
            raise tampered(what, "it claims more steps than were reserved")


def charged(entries: Sequence[Entry]) -> list[tuple[MechanismPlan, int]]:
    """Every plan and all its steps that count: a RESERVE counts whole unless a SETTLE says fewer were executed."""
    executed = {entry.reserve: entry.steps for entry in entries if entry.kind is Kind.SETTLE}
    plans: dict[str, MechanismPlan] = {}
    steps: Counter[str] = Counter()
    for entry in entries:
        if entry.plan is not None:
            plans[entry.plan_id] = entry.plan
            steps[entry.plan_id] += executed.get(entry.seq, entry.steps)
    return [(plan, steps[plan_id]) for plan_id, plan in plans.items()]


def verify_public(lines: bytes, public_key: bytes) -> list[Entry]:
    """The entries of a public ledger (JSON lines), if chain and every signature verify.

    Truncation does not show here: compare the last hash with the head that the coordinator acknowledged.
    Errors: Refusal LEDGER_TAMPERED.
    """
    parsed = parse_public(lines)
    entries = read_chain(parsed)
    for seq, line in enumerate(parsed):
        check_signature(line, public_key, seq)
    return entries


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
        raise tampered(_place(seq), "its signature is not by this site") from None


def _place(seq: int) -> str:
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
        raise tampered(_place(seq), "it is not a line that a ledger writes") from None
    return line


def _entry(body: bytes, seq: int) -> Entry:
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise tampered(_place(seq), "its fields are not those of an entry") from None


_DECODER = msgspec.json.Decoder(Entry, strict=True)

"""The lines of a privacy ledger in order: what may follow what, and what all of them charge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from common.privacy.entries import (
    GENESIS,
    Entry,
    Kind,
    Line,
    chained,
    check_signature,
    entry_of,
    parse_public,
    place,
    tampered,
)
from common.privacy.mechanism import MechanismPlan

ANSWERS = (Kind.SETTLE, Kind.ABORT, Kind.STOP)  # each ends a reservation
EXECUTED = (Kind.SETTLE, Kind.STOP)  # and these say how much of it counts


class Chain:
    """Entries in order, each checked against those before it, whoever wrote them; and what they charge so far."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._plans: dict[str, MechanismPlan] = {}
        self._steps: Counter[str] = Counter()
        self._marks: dict[int, int] = {}  # steps of the newest mark, by open reservation

    @property
    def charges(self) -> list[tuple[MechanismPlan, int]]:
        """Every plan and all its steps that count, as `charged` finds them in the entries."""
        return [(plan, self._steps[plan_id]) for plan_id, plan in self._plans.items()]

    @property
    def open(self) -> tuple[int, ...]:
        """Reservations that nothing has answered yet."""
        return tuple(self._marks)

    def reached(self, reservation: int) -> int:
        """Steps of an open reservation that may have been executed: up to its next mark, all where it has none."""
        whole = self.entries[reservation]
        return min(self._marks[reservation] + whole.every, whole.steps) if whole.every else whole.steps

    def add(self, entry: Entry) -> None:
        """Append `entry`. Errors: as `check`; then nothing is appended."""
        self.check(entry)
        if entry.plan is not None:
            self._plans.setdefault(entry.plan_id, entry.plan)
            self._steps[entry.plan_id] += entry.steps
            self._marks[entry.seq] = 0
        if entry.reserve is not None:
            whole = self.entries[entry.reserve]
            if entry.kind in EXECUTED:
                self._steps[whole.plan_id] -= whole.steps - entry.steps
            if entry.kind in ANSWERS:
                del self._marks[entry.reserve]
            else:
                self._marks[entry.reserve] = entry.steps
        self.entries.append(entry)

    def check(self, entry: Entry) -> None:
        """Refuse an entry that cannot be the next one. Errors: Refusal LEDGER_TAMPERED."""
        what = place(len(self.entries))
        if entry.seq != len(self.entries) or (entry.kind is Kind.OPEN) != (entry.seq == 0):
            raise tampered(what, "its number or kind is out of order")
        if self.entries and (entry.site, entry.dataset) != (self.entries[0].site, self.entries[0].dataset):
            raise tampered(what, "it is of another site or data set")
        reserves, about = entry.kind is Kind.RESERVE, entry.kind is Kind.MARK or entry.kind in ANSWERS
        if (entry.reserve is not None and not about) or ((entry.plan is not None or entry.every) and not reserves):
            raise tampered(what, "it has fields of another kind")
        if reserves:
            self._check_plan(entry, what)
        elif about:
            self._check_steps(entry, what)

    def _check_plan(self, entry: Entry, what: str) -> None:
        plan = entry.plan
        if plan is None or plan.partition != entry.partition or not 0 <= entry.every < max(1, entry.steps):
            raise tampered(what, "its plan is missing or does not fit")
        if entry.steps < 1:
            raise tampered(what, "it reserves nothing")
        known = self._plans.get(entry.plan_id)
        if plan is not known and plan != known and (known is not None or plan.plan_id != entry.plan_id):
            raise tampered(what, "its plan is not the one it names")

    def _check_steps(self, entry: Entry, what: str) -> None:
        """Refuse what answers no open reservation, or counts other steps than its marks allow."""
        seq = -1 if entry.reserve is None else entry.reserve
        if seq not in self._marks:
            raise tampered(what, "it answers no open reservation")
        whole, least, most = self.entries[seq], self._marks[seq], self.reached(seq)
        counts = {
            Kind.SETTLE: least <= entry.steps <= most,
            Kind.ABORT: entry.steps == 0,
            Kind.MARK: bool(whole.every) and entry.steps == most < whole.steps,
            Kind.STOP: bool(whole.every) and entry.steps == most,
        }
        if not counts[entry.kind]:
            raise tampered(what, "it counts other steps than were reserved, or than the marks before it allow")


def chain_of(lines: Iterable[Line]) -> Chain:
    """The chain of `lines`, if each one follows from the one before it. Signatures are not checked here.

    Errors: Refusal LEDGER_TAMPERED for a changed, missing, repeated or reordered line.
    """
    previous, chain = GENESIS, Chain()
    for seq, line in enumerate(lines):
        if chained(previous, line.body) != line.hash:
            raise tampered(place(seq), "its hash does not follow from the line before it")
        chain.add(entry_of(line.body, seq))
        previous = line.hash
    return chain


def read_chain(lines: Iterable[Line]) -> list[Entry]:
    """The entries of `lines`. Errors: as `chain_of`."""
    return chain_of(lines).entries


def charged(entries: Sequence[Entry]) -> list[tuple[MechanismPlan, int]]:
    """Every plan and all its steps that count, in any selection of a chain's entries.

    A RESERVE counts whole unless a SETTLE says that fewer steps were executed, or a STOP how far they may have gone.
    """
    executed = {entry.reserve: entry.steps for entry in entries if entry.kind in EXECUTED}
    plans: dict[str, MechanismPlan] = {}
    steps: Counter[str] = Counter()
    for entry in entries:
        if entry.plan is not None:
            plans.setdefault(entry.plan_id, entry.plan)
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

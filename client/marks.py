"""How far work on a reservation may have gone: marks in the ledger while it goes on, and its end without an output."""

from __future__ import annotations

from common.errors import Code
from common.privacy.ledger import Entry, Kind, Ledger, new_entry
from common.privacy.mechanism import MechanismPlan

LEAST_STRIDE = 10  # steps from one mark to the next: a mark is a write that waits for the disk
MOST_STRIDES = 8  # of one reservation


def stride(plan: MechanismPlan, steps: int) -> int:
    """Steps from one mark to the next while `steps` steps of `plan` are executed one by one; 0 where none is needed.

    Only local steps are: every other mechanism draws its noise once.
    """
    every = max(LEAST_STRIDE, -(-steps // MOST_STRIDES))
    return every if (plan.mode, plan.purpose) == ("M1", "train") and every < steps else 0


def ending(ledger: Ledger, seq: int, reason: Code) -> Entry:
    """The entry that ends an open reservation without an output. Nobody may work on it any more.

    With marks, what counts are the steps up to the one that would have come next; without, all that were reserved.
    """
    if ledger.entries[seq].every:
        return new_entry(Kind.STOP, reserve=seq, steps=ledger.open[seq], note=reason.value)
    return new_entry(Kind.ABORT, reserve=seq, note=reason.value)


def end_interrupted(ledger: Ledger) -> None:
    """End what a process that is gone left open and marked; what it reserved without marks stays charged as it is.

    For a ledger that was just opened: its lock shows that no other process works on it, and nothing of a reservation
    without a SETTLE has left.
    """
    for seq in ledger.open:
        if ledger.entries[seq].every:
            ledger.append(ending(ledger, seq, Code.PROCESS_FAILED))

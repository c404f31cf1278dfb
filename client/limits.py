"""What the keeper of a site allows to be spent on a data set, and why it is another than before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import Code, Refusal
from common.privacy.entries import Entry, Kind
from common.privacy.ledger import new_entry


@dataclass(frozen=True)
class Limit:
    """The most that may ever be spent on one record of a data set, as policy.toml says.

    reason  why it is another than before; it goes into the ledger, which the coordinator reads
    """

    epsilon: float
    delta: float
    reason: str = ""


def limit_change(entries: Sequence[Entry], limit: Limit) -> Entry | None:
    """The entry that says why `limit` is another than at the last charge; None if it is the same.

    Errors: Refusal POLICY_PRIVACY if nobody gave a reason, or gave that of an earlier change.
    """
    last = next((entry for entry in reversed(entries) if entry.budget is not None), None)
    if last is None or (last.budget, last.delta) == (limit.epsilon, limit.delta):
        return None
    given = {entry.note for entry in entries if entry.kind is Kind.BUDGET_CHANGE}
    if not limit.reason or limit.reason in given:
        raise Refusal(
            Code.POLICY_PRIVACY,
            f"Limit changed from {last.budget:g} to {limit.epsilon:g} (delta {limit.delta:g})",
            "policy.toml gives no new reason for it",
            "Say why in [privacy] reason; the ledger keeps it, and the coordinator can read it",
        )
    return new_entry(Kind.BUDGET_CHANGE, budget=limit.epsilon, delta=limit.delta, note=limit.reason)

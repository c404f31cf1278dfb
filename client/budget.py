"""What a site has spent on a data set, recomputed from its ledger while the agent may be running."""

from __future__ import annotations

import contextlib
import math
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from client.holding import ledger_name, ledger_path
from client.policy import Policy
from client.site import DataSettings, SiteSettings
from common.config import read
from common.errors import Code, Refusal
from common.identity import Signer
from common.privacy.accounting import ONLINE, REPORT
from common.privacy.chain import charged, read_chain
from common.privacy.entries import Entry, Line, check_signature
from common.privacy.ledger_file import refuse_no_file, rolled_back
from common.privacy.mechanism import MechanismPlan
from common.privacy.spending import spending, spending_of


def budget_of(settings: SiteSettings, held: DataSettings) -> dict[str, Any]:
    """One data set's spending. Reads without locks, so that a running agent is not disturbed.

    A ledger that is missing or shorter than the site remembers is no reason to call anything unspent.
    Errors: Refusal LEDGER_TAMPERED, LEDGER_ROLLED_BACK, FILE_MISSING (identity, key of the split).
    """
    rules = read(Policy, Path(settings.policy)).privacy
    entries, head = _verified(settings, held)
    spent = spending_of(entries, rules.stated_delta, REPORT)
    return {
        "dataset": held.dataset,
        "epsilon": spent.epsilon if math.isfinite(spent.epsilon) else None,
        "training": spent.nominal["train"],
        "holdout": spent.nominal["holdout"],
        "limit": rules.max_epsilon,
        "left": max(0.0, rules.max_epsilon - spent.gated),
        "delta": rules.stated_delta,
        "entries": len(entries),
        "head": head,
        "void": list(spent.void),
    }


def entries_of(settings: SiteSettings, held: DataSettings) -> list[Entry]:
    """The verified entries of the data set's ledger. Errors: as `budget_of`."""
    return _verified(settings, held)[0]


def epsilon_with(settings: SiteSettings, held: DataSettings, charges: Sequence[tuple[MechanismPlan, int]]) -> float:
    """What the data set will have cost once these steps of these plans are charged as well, as the agent's gate counts.

    Errors: as `budget_of`.
    """
    rules = read(Policy, Path(settings.policy)).privacy
    return spending([*charged(_verified(settings, held)[0]), *charges], rules.stated_delta, ONLINE).gated


def _verified(settings: SiteSettings, held: DataSettings) -> tuple[list[Entry], str | None]:
    """The verified entries of the data set's ledger and its head (hex); none if it was never charged."""
    newest = _remembered(settings, held)  # before the ledger: the agent may add a line in between
    path = ledger_path(settings, held)
    refuse_no_file(path)
    found = [Line(*row) for row in _rows(path, "SELECT body, hash, signature FROM lines ORDER BY seq")]
    if newest is not None and newest not in {line.hash for line in found}:
        raise rolled_back("it lacks an entry that this site remembers: it was deleted, or an old copy was restored")
    entries = read_chain(found)
    public = Signer.load(Path(settings.state) / "identity").public
    for seq, line in enumerate(found):
        check_signature(line, public, seq)
    return entries, found[-1].hash.hex() if found else None


def _remembered(settings: SiteSettings, held: DataSettings) -> bytes | None:
    """The newest head that the site's key store knows of this ledger."""
    query = "SELECT head FROM ledger_head WHERE dataset = ?"
    rows = _rows(Path(settings.state) / "state.sqlite", query, ledger_name(settings, held.dataset))
    return rows[0][0] if rows else None


def _rows(path: Path, query: str, *values: str) -> list[tuple[bytes, ...]]:
    """What `query` finds in a database that another process may be writing; nothing if there is no file."""
    if not path.exists():
        return []
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return [tuple(memoryview(part).tobytes() for part in row) for row in connection.execute(query, values)]
    except (sqlite3.DatabaseError, TypeError):  # no database at all, or a line in it is not of bytes
        raise Refusal(
            Code.LEDGER_TAMPERED, f"{path} not read", "the file is damaged", "Restore its newest copy"
        ) from None

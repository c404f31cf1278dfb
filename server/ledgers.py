"""What the sites' ledgers say when a run ends, held against what was acknowledged while it ran."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from common.errors import Code, Refusal
from common.messages import LedgerReply
from common.privacy.accounting import ONLINE
from common.privacy.chain import verify_public
from common.privacy.entries import GENESIS, parse_public
from common.privacy.spending import spending_of
from common.work import Work
from server.checkpoints import State
from server.durable import write_whole

VOID_DELTA = 1e-5  # for jobs without a delta of their own: what their sites spent before still has an epsilon


def known_heads(file: Path, dataset: str) -> dict[int, str]:
    """The newest head (hex) of each site's ledger of a data set that any run of this federation acknowledged.

    Errors: Refusal CONFIG_INVALID if the file is damaged: without it a rollback between two runs would go unseen.
    """
    return {int(site): head for site, head in _read(file).get(dataset, {}).items()}


def keep_heads(file: Path, dataset: str, heads: Mapping[int, str]) -> None:
    """Add heads to those that later runs know, on disk before this returns."""
    table = _read(file)
    known = table.get(dataset, {})
    newer = {**known, **{str(site): head for site, head in sorted(heads.items())}}
    if newer != known:
        write_whole(file, json.dumps({**table, dataset: newer}, indent=1, sort_keys=True).encode() + b"\n")


def _read(file: Path) -> dict[str, dict[str, str]]:
    try:
        table = json.loads(file.read_bytes())
        if all(len(bytes.fromhex(head)) == 32 and int(site) for part in table.values() for site, head in part.items()):
            return dict(table)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    why = "it is damaged, and without it a ledger that was rolled back would go unseen"
    raise Refusal(Code.CONFIG_INVALID, f"{file} not read", why, "Restore it; the newest run.json holds heads too")


def brought_up_to_date(
    state: State, work: Work, site: int, reply: LedgerReply, known: Mapping[int, str] = MappingProxyType({})
) -> State:
    """`state` with the head and the epsilon of a ledger that verifies and holds all that was acknowledged.

    A site may have been charged for work whose answer was lost; its epsilon is then larger than the last one it
    reported. Of a ledger that does not verify, or lacks an acknowledged line, nothing is believed: the head that was
    acknowledged stays, and an audit finds the difference.

    known  heads that earlier runs acknowledged
    """
    try:
        entries = verify_public(reply.entries, work.manifest.site(site).identity)
    except Refusal:
        return state
    places = [GENESIS, *(line.hash for line in parse_public(reply.entries))]
    acknowledged = bytes.fromhex(state.heads.get(site) or known.get(site) or GENESIS.hex())
    if acknowledged not in places or places[-1] != reply.head:
        return state
    spent = spending_of(entries, work.job.privacy.delta or VOID_DELTA, ONLINE)
    return state.charged(site, reply.head, max(state.epsilon.get(site, 0.0), spent.gated))


def fault_of(work: Work, site: int, reply: LedgerReply) -> Code:
    """Why nothing is believed of a ledger: it does not verify, or it lacks what was acknowledged."""
    try:
        verify_public(reply.entries, work.manifest.site(site).identity)
    except Refusal as refusal:
        return refusal.code
    return Code.LEDGER_ROLLED_BACK

"""What the sites' ledgers say when a run ends, held against what was acknowledged while it ran."""

from __future__ import annotations

from common.errors import Refusal
from common.messages import LedgerReply
from common.privacy.accounting import ONLINE
from common.privacy.entries import GENESIS, parse_public, verify_public
from common.privacy.spending import spending_of
from common.work import Work
from server.checkpoints import State

VOID_DELTA = 1e-5  # for jobs without a delta of their own: what their sites spent before still has an epsilon


def brought_up_to_date(state: State, work: Work, site: int, reply: LedgerReply) -> State:
    """`state` with the head and the epsilon of a ledger that verifies and holds all that was acknowledged.

    A site may have been charged for work whose answer was lost; its epsilon is then larger than the last one it
    reported. Of a ledger that does not verify, or lacks an acknowledged line, nothing is believed: the head that was
    acknowledged stays, and an audit finds the difference.
    """
    try:
        entries = verify_public(reply.entries, work.manifest.site(site).identity)
    except Refusal:
        return state
    places = [GENESIS, *(line.hash for line in parse_public(reply.entries))]
    acknowledged = bytes.fromhex(state.heads.get(site, GENESIS.hex()))
    if acknowledged not in places or places[-1] != reply.head:
        return state
    spent = spending_of(entries, work.job.privacy.delta or VOID_DELTA, ONLINE)
    return state.charged(site, reply.head, max(state.epsilon.get(site, 0.0), spent.gated))

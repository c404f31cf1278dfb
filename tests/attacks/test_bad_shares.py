"""Bad shares in a recovery: a false one is found by its commitment, a wrong seed by its keys; none opens anything.

Attack: a holder, or the dealer itself, spoils the recovery of a lost unmasking site. Flower 1.41 crashes on one: its
server's `combine_shares` raises a ValueError that nobody catches, and the round is lost without a culprit.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace as altered

from common.errors import Code, Refusal
from common.secagg.shamir import SHARE_BYTES
from common.secagg.statements import sign_release
from server.recovery import Recovering
from tests.secagg_federation import SHARING, Federation, signer


def losing_one() -> tuple[Federation, Recovering]:
    """Six sites report; of five unmasking sites the first is lost, and the others have answered."""
    federation = Federation.open(6, rules=SHARING, numbers=2)
    closed = federation.answered(federation.collected(), federation.session.unmaskers[1:])
    return federation, Recovering.open(federation.opening, closed)


SPOILT = [bytes(SHARE_BYTES), b"\1" + bytes(SHARE_BYTES - 1), b"\xff" * SHARE_BYTES, b"", b"\0"]


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_false_share_is_refused_and_its_holder_named(spoilt: bytes) -> None:
    """Must: say whose share it is. Must not: join it, or count the holder among those that released."""
    federation, recovering = losing_one()
    liar, context = federation.session.unmaskers[-1], recovering.unmasking.aggregation.context
    false = sign_release(signer(liar), context, altered(federation.released(recovering, liar), shares=(spoilt,)))
    with pytest.raises(Refusal) as refused:
        recovering.receive(liar, false)
    assert refused.value.code is Code.E_SHARE
    for site in federation.session.unmaskers[1:-1]:
        recovering = recovering.receive(site, federation.released(recovering, site))
    assert recovering.missing == {liar}
    assert not recovering.enough  # the rules ask for four: the round is lost, and its culprit known

"""The masks that one unmasking site shares with a set of reports, summed: by itself, or from its recovered seed."""

from __future__ import annotations

from collections.abc import Sequence

from common.secagg.keys import Pair, RoundSeed, agree, decapsulate, public
from common.secagg.masks import add_masks, pack, reduce
from common.secagg.statements import Aggregation
from common.secagg.wire import Member


def mask_sum(aggregation: Aggregation, unmasker: int, seed: RoundSeed, members: Sequence[Member]) -> bytes:
    """M_c, packed.

    unmasker  whose seed of the number it is
    members   as that unmasking site sees them
    Errors: Refusal E_KEY.
    """
    lanes = aggregation.ring.zeros()
    add_masks([_mask_key(aggregation, unmasker, seed, member) for member in members], lanes)
    return pack(aggregation.ring, reduce(aggregation.ring, lanes))


def _mask_key(aggregation: Aggregation, unmasker: int, seed: RoundSeed, member: Member) -> bytes:
    """The mask key that this unmasking site shares with one report."""
    shared = agree(seed.exchange, member.exchange)
    if member.ciphertext is not None:
        shared += decapsulate(seed.kem, member.ciphertext)
    pair = Pair(
        context=aggregation.context,
        site=member.site,
        unmasker=unmasker,
        exchange=member.exchange,
        unmasker_exchange=public(seed.exchange),
        ciphertext=member.ciphertext,
    )
    return pair.mask_key(shared)

"""The five orders of an attempt by pairwise masks, and their replies: advertise, deal, mask, agree, reveal."""

from __future__ import annotations

from typing import Annotated

import msgspec

from common.orders import Clip, Epsilon, Head, Order, Reply, Round, Task
from common.secagg.pairwise.wire import (
    SITES_MAX,
    Cohort,
    Endorsement,
    PairKeys,
    PairParcel,
    PairSession,
    RevealedShare,
)
from common.secagg.wire import Count, Hash, Signature

Many = msgspec.Meta(max_length=SITES_MAX)


class AdvertiseOrder(Order, frozen=True, kw_only=True, tag="advertise"):
    """Train from, or evaluate, these parameters, and answer with public keys. The same bytes for all sites.

    number      of the attempt, used once in the life of the session
    cohort      sites that are asked, ascending
    parameters, heads, clip  as in a `WorkOrder`
    """

    task: Task
    round: Round
    attempt: Round
    number: Count
    session: PairSession
    cohort: Cohort
    parameters: bytes
    heads: Annotated[tuple[Head, ...], msgspec.Meta(max_length=2**20)]
    clip: Clip = 0.0


class _Stage(Order, frozen=True, kw_only=True):
    """A later stage of the attempt that `sid` and `number` name; the rest of it the site remembers."""

    sid: Hash
    number: Count
    task: Task
    round: Round
    attempt: Round


class PairDealOrder(_Stage, frozen=True, kw_only=True, tag="pair-deal"):
    """Deal shares of your secrets to the peers that you chose. peers: all of this site's, ascending."""

    peers: Annotated[tuple[PairKeys, ...], Many]


class MaskOrder(_Stage, frozen=True, kw_only=True, tag="mask"):
    """Send your masked vector. dealt: peers that have dealt, ascending; parcels: those of them that are for you."""

    dealt: Cohort
    parcels: Annotated[tuple[PairParcel, ...], Many]


class AgreeOrder(_Stage, frozen=True, kw_only=True, tag="agree"):
    """Sign the set of sites whose masked vectors are in the sum, ascending."""

    survivors: Cohort


class RevealOrder(_Stage, frozen=True, kw_only=True, tag="reveal"):
    """These peers signed the set that you signed: send your shares. By ascending site."""

    endorsements: Annotated[tuple[Endorsement, ...], Many]


class Advertised(Reply, frozen=True, kw_only=True, tag="advertised"):
    """Public keys, and what the work cost: no metric, no count of records, no text."""

    keys: PairKeys
    epsilon: Epsilon
    head: Hash


class PairDealt(Reply, frozen=True, kw_only=True, tag="pair-dealt"):
    """One parcel for each peer that this site chose and that was present."""

    parcels: Annotated[tuple[PairParcel, ...], Many]


class Masked(Reply, frozen=True, kw_only=True, tag="masked"):
    """The masked vector, packed lanes."""

    body: bytes


class Agreed(Reply, frozen=True, kw_only=True, tag="agreed"):
    """A signature over the set of survivors."""

    signature: Signature


class Revealed(Reply, frozen=True, kw_only=True, tag="revealed"):
    """Shares of peers' secrets by ascending dealer, one each."""

    shares: Annotated[tuple[RevealedShare, ...], Many]

"""One order and one reply of each stage of pairwise masks."""

from __future__ import annotations

from typing import Any

from common.messages import AnyOrder, AnyReply
from common.orders import Head
from common.secagg.pairwise.orders import (
    Advertised,
    AdvertiseOrder,
    Agreed,
    AgreeOrder,
    Masked,
    MaskOrder,
    PairDealOrder,
    PairDealt,
    Revealed,
    RevealOrder,
)
from common.secagg.pairwise.wire import Endorsement, Lock, PairKeys, PairParcel, PairSession, RevealedShare

HASH, KEY = bytes(32), bytes(range(32))
BASE: dict[str, Any] = {"run": bytes(16), "job": b"{}"}
PAIRS = PairSession(sid=HASH, manifest=HASH, job=HASH, suite=2)
PAIR_KEYS = PairKeys(
    site=1,
    number=3,
    exchange=KEY,
    kem=bytes(1184),
    box_exchange=KEY,
    box_kem=bytes(1184),
    seed=HASH,
    self_digest=HASH,
    signature=bytes(64),
)
PARCEL = PairParcel(
    dealer=1,
    holder=2,
    ciphertext=bytes(1088),
    lock=Lock(ciphertext=bytes(1088), pad=HASH),
    self_commitment=HASH,
    pair_commitment=HASH,
    body=bytes(82),
)
STAGE: dict[str, Any] = {**BASE, "sid": HASH, "number": 3, "task": "train", "round": 1, "attempt": 0}
PAIR_ORDERS: dict[str, AnyOrder] = {
    "advertise": AdvertiseOrder(
        **BASE,
        task="train",
        round=1,
        attempt=0,
        number=3,
        session=PAIRS,
        cohort=(1, 2),
        parameters=b"\0" * 8,
        heads=(Head(site=1, head=HASH),),
    ),
    "pair-deal": PairDealOrder(**STAGE, peers=(PAIR_KEYS,)),
    "mask": MaskOrder(**STAGE, dealt=(1, 2), parcels=(PARCEL,)),
    "agree": AgreeOrder(**STAGE, survivors=(1, 2)),
    "reveal": RevealOrder(**STAGE, endorsements=(Endorsement(site=1, signature=bytes(64)),)),
}
PAIR_REPLIES: dict[str, AnyReply] = {
    "advertised": Advertised(order=HASH, keys=PAIR_KEYS, epsilon=0.25, head=HASH),
    "pair-dealt": PairDealt(order=HASH, parcels=(PARCEL,)),
    "masked": Masked(order=HASH, body=b"\0" * 8),
    "agreed": Agreed(order=HASH, signature=bytes(64)),
    "revealed": Revealed(order=HASH, shares=(RevealedShare(dealer=1, share=bytes(33)),)),
}

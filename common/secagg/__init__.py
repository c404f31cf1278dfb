"""Secure aggregation `alm-v1`: sites add masks, unmasking sites take only their sum away.

The arithmetic of it, with two sites that share one mask key each with the only unmasking site:

>>> import numpy as np
>>> from common.secagg import IntegerCodec, add_masks, pack, unpack
>>> codec = IntegerCodec(dimension=3, sites_max=10)
>>> keys = [bytes([1]) * 32, bytes([2]) * 32]
>>> total = codec.ring.zeros()
>>> for key, vector in zip(keys, ([1, -2, 3], [10, 20, -30])):
...     encoded = codec.encode(np.array(vector))
...     add_masks([key], encoded.lanes)            # what leaves the site is uniform without the key
...     total += unpack(codec.ring, pack(codec.ring, encoded.lanes))
>>> masks = codec.ring.zeros()
>>> add_masks(keys, masks)                         # the unmasking site answers with one vector
>>> codec.open_sum(total - masks, members=2).values.tolist()
[11, 18, -27]

What a site writes into the ring: `codec.py` (bounded reals, integers), `distributed.py` (vectors with their noise).
Who says what to whom: `client/secagg.py` (site and unmasking site), `server/enrolment.py` and `server/secagg.py`
(coordinator); what they sign: `statements.py`; under which rules: `rules.py` and `manifest.py`. Unmasking sites that
are lost in a round are recovered from shares that the others keep: `shamir.py`, `parcels.py`, `client/recovery.py`,
`server/dealing.py`, `server/recovery.py`.
"""

from __future__ import annotations

from common.secagg.codec import Codec, Encoded, IntegerCodec, RangeCodec, Sum
from common.secagg.distributed import DistributedCodec
from common.secagg.keys import RoundSeed
from common.secagg.manifest import (
    Manifest,
    SiteEntry,
    parse_manifest,
    read_manifest,
    sealed,
    write_manifest,
)
from common.secagg.masks import Lanes, Ring, add_masks, lift, lower, pack, reduce, unpack
from common.secagg.rules import Rules
from common.secagg.statements import Aggregation, check_session, context_digest, record_digest, set_digest

__all__ = [
    "Aggregation",
    "Codec",
    "DistributedCodec",
    "Encoded",
    "IntegerCodec",
    "Lanes",
    "Manifest",
    "RangeCodec",
    "Ring",
    "RoundSeed",
    "Rules",
    "SiteEntry",
    "Sum",
    "add_masks",
    "check_session",
    "context_digest",
    "lift",
    "lower",
    "pack",
    "parse_manifest",
    "read_manifest",
    "record_digest",
    "reduce",
    "sealed",
    "set_digest",
    "unpack",
    "write_manifest",
]

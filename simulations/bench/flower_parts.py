"""Parts of Flower's SecAgg+ on their own: one site among made-up neighbours, and single steps of the server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message_type import MessageType
from flwr.common import FitIns, bytes_to_ndarray, ndarray_to_bytes, ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_subtraction
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen, share_keys_plaintext_concat
from flwr.compat.common import recorddict_compat as compat
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)

from simulations.bench.flower_round import FlowerSite, at_work
from simulations.bench.rows import least

PRIVATE_KEY = 306  # bytes of a private key as Flower writes and shares it
MODULUS = 2**32
_OWN = 1


def lone_site(d: int, k: int, threshold: int) -> tuple[float, int]:
    """CPU seconds and bytes sent of one site in all four stages, its k - 1 neighbours made up."""
    update = np.random.default_rng(0).uniform(-1.0, 1.0, d).astype(np.float32)
    site = FlowerSite(_OWN, lambda _: update, 100)
    with at_work():
        own = _answer(site, _setup(k, threshold))
        publics = {_OWN: [own[Key.PUBLIC_KEY_1], own[Key.PUBLIC_KEY_2]]}
        privates = {}
        for node in range(2, k + 1):
            first, second = generate_key_pairs(), generate_key_pairs()
            publics[node] = [public_key_to_bytes(first[1]), public_key_to_bytes(second[1])]
            privates[node] = second[0]
        _answer(site, {Key.STAGE: Stage.SHARE_KEYS, **{str(node): keys for node, keys in publics.items()}})
        seed, private = 4 + 48, 4 + 16 * (PRIVATE_KEY // 16 + 1)  # bytes of a share: index, padded chunks
        to_own = bytes_to_public_key(cast("bytes", own[Key.PUBLIC_KEY_2]))
        sealed = [
            encrypt(
                generate_shared_key(each, to_own),
                share_keys_plaintext_concat(node, _OWN, os.urandom(seed), os.urandom(private)),
            )
            for node, each in privates.items()
        ]
        stage = {Key.STAGE: Stage.COLLECT_MASKED_VECTORS, Key.CIPHERTEXT_LIST: sealed, Key.SOURCE_LIST: list(privates)}
        _answer(site, stage)
        _answer(site, {Key.STAGE: Stage.UNMASK, Key.ACTIVE_NODE_ID_LIST: list(publics), Key.DEAD_NODE_ID_LIST: []})
    return sum(site.seconds.values()), sum(site.sent.values())


def take_mask_away(d: int) -> None:
    """One mask made from its seed and subtracted, as the server does for each site and each lost pair."""
    shape: list[tuple[int, ...]] = [(1,), (d,)]
    vector = [np.zeros(each, np.int64) for each in shape]
    parameters_subtraction(vector, pseudo_rand_gen(os.urandom(32), MODULUS, shape))


def adding(d: int) -> float:
    """CPU seconds to read one masked vector and add it."""
    sent, total = ndarray_to_bytes(np.zeros(d, np.int64)), [np.zeros(d, np.int64)]
    return least(lambda: parameters_addition(total, [bytes_to_ndarray(sent)]), 3)


@lru_cache
def joining(size: int, threshold: int, k: int, shares: int) -> float:
    """CPU seconds to rebuild a secret of `size` bytes from `shares` of its k shares: Flower joins all that it has."""
    some = create_shares(os.urandom(size), threshold, k)[:shares]
    return least(lambda: combine_shares(some), 2)


def agreeing() -> float:
    """CPU seconds of one key agreement between a rebuilt private and a public key."""
    private, public = private_key_to_bytes(generate_key_pairs()[0]), public_key_to_bytes(generate_key_pairs()[1])
    return least(lambda: generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(public)), 5)


def _setup(k: int, threshold: int) -> dict[str, str | int | float]:
    return {
        Key.STAGE: Stage.SETUP,
        Key.SAMPLE_NUMBER: k,
        Key.SHARE_NUMBER: k,
        Key.THRESHOLD: threshold,
        Key.CLIPPING_RANGE: 8.0,
        Key.TARGET_RANGE: 2**22,
        Key.MOD_RANGE: MODULUS,
        Key.MAX_WEIGHT: 1000.0,
    }


def _answer(site: FlowerSite, settings: Mapping[str, Any]) -> ConfigRecord:
    """The site's answer to a message of one stage; training is asked for in the one that needs it."""
    content = RecordDict()
    if settings[Key.STAGE] == Stage.COLLECT_MASKED_VECTORS:
        start = FitIns(ndarrays_to_parameters([np.zeros(1, np.float32)]), {})
        content = compat.fitins_to_recorddict(start, keep_input=True)
    content.config_records[RECORD_KEY_CONFIGS] = ConfigRecord(dict(settings))
    reply = site.answer(Message(content, site.node, MessageType.TRAIN))
    return reply.content.config_records[RECORD_KEY_CONFIGS]

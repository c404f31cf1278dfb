"""Weak randomness: masks that follow from fewer bits than their keys have."""

from __future__ import annotations

import os

import numpy as np
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import generate_key_pairs

import client.secagg
import common.secagg.totals
from common.secagg import Ring, add_masks
from simulations.bench.flower_round import Relay, play
from tests.attacks.opponents import (
    FIRST,
    MODULUS,
    NEAR,
    TARGET_RANGE,
    WIDE,
    flower_sites,
    masked_vector,
    pair_key,
    shares_for,
    state_of,
    update_of,
    updates,
    without_masks,
)
from tests.secagg_federation import Federation


def folded(seed: bytes) -> int:
    """The number that Flower's generator is seeded with: the exclusive or of the seed's words."""
    return int(np.bitwise_xor.reduce(np.frombuffer(seed, "<u4")))


def test_on_flower_a_pair_mask_follows_from_28_bits():
    """Weak mask generator (secaggplus_utils.pseudo_rand_gen): 256-bit keys become 28 bits of a Mersenne Twister."""
    seen = 0
    for _ in range(40):
        (own, _), (_, other) = generate_key_pairs(), generate_key_pairs()
        seed = generate_shared_key(own, other)
        seen |= folded(seed)
        turned = seed[4:8] + seed[:4] + seed[8:]
        masks = [pseudo_rand_gen(each, MODULUS, [(5,)])[0] for each in (seed, turned)]
        np.testing.assert_array_equal(*masks)  # two keys, one mask
    assert seen & 0x80808080 == 0


def test_on_flower_an_enumeration_opens_a_single_sites_update():
    """Enumeration of pair seeds: what takes minutes for 28 bits is done here for the lowest 10 of them."""
    vectors = updates(2)
    relay = Relay(flower_sites(vectors))
    play(relay, 1.0, 1.0)
    seed = combine_shares(shares_for(relay, FIRST))  # the server is given it by the protocol
    masked = without_masks(masked_vector(relay, FIRST), [seed], {})
    key = pair_key(state_of(relay.sites[FIRST])["sk1"], state_of(relay.sites[FIRST + 1])["pk1"])
    found = []
    for low in range(2**10):
        guess = (folded(key) >> 10 << 10 | low).to_bytes(4, "little")
        opened = without_masks(masked, [], {guess: -1})
        if np.abs(opened[1][:8] - TARGET_RANGE // 2).max() < TARGET_RANGE // 16:  # updates are small: near the middle
            found.append(opened)
    assert len(found) == 1
    np.testing.assert_allclose(update_of(found[0], 100), vectors[0], atol=NEAR)


def test_every_bit_of_a_mask_key_changes_half_of_its_mask():
    ring, key = Ring(32, 4096), os.urandom(32)
    one = ring.zeros()
    add_masks([key], one)
    for bit in range(256):
        other = ring.zeros()
        add_masks([(int.from_bytes(key, "little") ^ 1 << bit).to_bytes(32, "little")], other)
        flipped = np.bitwise_count(one ^ other).sum() / (32 * ring.lanes)
        assert 0.48 < flipped < 0.52


def test_mask_keys_of_a_round_are_distinct_and_both_sides_have_the_same(monkeypatch):
    """Must: agree pair by pair. Must not: repeat a key, or leave any of its bits constant."""
    used: list[list[bytes]] = []

    def noted(keys, lanes):
        used.append(list(keys))
        add_masks(keys, lanes)

    for room in (client.secagg, common.secagg.totals):  # masks are added there, and taken away
        monkeypatch.setattr(room, "add_masks", noted)
    federation = Federation.open(12, codec=WIDE)
    for number in (0, 1):
        used.clear()
        federation.opened(federation.collected(number))
        sites, unmaskers = used[:12], used[12:]
        assert [list(keys) for keys in zip(*sites, strict=True)] == unmaskers
        keys = [np.frombuffer(key, np.uint8) for row in sites for key in row]
        assert len({key.tobytes() for key in keys}) == 24
        assert np.bitwise_or.reduce(keys).min() == 255
        assert np.bitwise_and.reduce(keys).max() == 0

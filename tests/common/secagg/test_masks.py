"""Masks: two paths to one keystream, packing that loses nothing, sums that wrap where the ring says."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.secagg.masks import (
    BITS,
    Ring,
    add_masks,
    ctr_stream,
    gcm_stream,
    keystream,
    lift,
    lower,
    pack,
    reduce,
    unpack,
)

KEYS = [bytes([number] * 32) for number in range(1, 4)]


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("lanes", [4, 65_536, 65_540, 200_004])
def test_the_fast_and_the_portable_path_give_the_same_masks(bits, lanes):
    ring = Ring(bits, lanes)
    fast, portable = ring.zeros(), ring.zeros()
    add_masks(KEYS, fast, gcm_stream)
    add_masks(KEYS, portable, ctr_stream)
    np.testing.assert_array_equal(fast, portable)


def test_many_keys_add_as_one_after_the_other():
    """More streams than are open at once, over more than one block."""
    ring, keys = Ring(32, 70_000), [number.to_bytes(32, "little") for number in range(130)]
    together, alone = ring.zeros(), ring.zeros()
    add_masks(keys, together)
    for key in keys:
        add_masks([key], alone)
    np.testing.assert_array_equal(together, alone)


def test_a_missing_fast_path_falls_back_to_the_portable_one(monkeypatch):
    from cryptography.exceptions import UnsupportedAlgorithm

    def without(key):
        raise UnsupportedAlgorithm("no GCM on this machine")

    expected, buffer = bytearray(80), bytearray(80)
    gcm_stream(KEYS[0])(bytes(64), expected)
    monkeypatch.setattr("common.secagg.masks.gcm_stream", without)
    keystream(KEYS[0])(bytes(64), buffer)
    assert buffer[:64] == expected[:64]


@given(bits=st.sampled_from(BITS), quads=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_packing_and_unpacking_give_the_vector_back(bits, quads, seed):
    ring = Ring(bits, 4 * quads)
    lanes = np.random.default_rng(seed).integers(0, 2**bits, ring.lanes).astype(ring.dtype)
    body = pack(ring, lanes)
    assert body == sum(int(lane) << (bits * place) for place, lane in enumerate(lanes)).to_bytes(ring.packed, "little")
    np.testing.assert_array_equal(unpack(ring, body), lanes)


@pytest.mark.parametrize("bits", BITS)
def test_packing_and_unpacking_keep_to_the_body_whatever_lies_behind_it(bits):
    """Words are read and written wider than their places: never beyond the end, at any end of a memory page."""
    for quads in range(1, 9):
        ring = Ring(bits, 4 * quads)
        full = np.full(ring.lanes, 2**bits - 1, np.uint64).astype(ring.dtype)
        assert pack(ring, full) == b"\xff" * ring.packed
        np.testing.assert_array_equal(unpack(ring, b"\xff" * ring.packed), full)


@pytest.mark.parametrize("bits", BITS)
def test_lifting_gives_the_integers_back_up_to_both_ends(bits):
    ring, top = Ring(bits, 8), 2 ** (bits - 1)
    integers = np.array([0, 1, -1, top - 1, -top, 2, -2, 5], np.int64)
    np.testing.assert_array_equal(lift(ring, unpack(ring, pack(ring, lower(ring, integers)))), integers)
    assert lift(ring, lower(ring, integers + 2**bits)).tolist() == integers.tolist()


@pytest.mark.parametrize("bits", BITS)
def test_masks_added_and_taken_away_leave_the_vector(bits):
    ring = Ring(bits, 1000)
    integers = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 1000)
    lanes, masks = lower(ring, integers), ring.zeros()
    add_masks(KEYS, lanes)
    add_masks(KEYS, masks)
    np.testing.assert_array_equal(lift(ring, reduce(ring, lanes - masks)), integers)


def test_a_mask_takes_no_memory_of_its_own():
    ring = Ring(32, 4_000_000)
    lanes = ring.zeros()
    tracemalloc.start()
    add_masks(KEYS, lanes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize(("bits", "lanes"), [(8, 4), (33, 4), (24, 6), (24, 0), (24, -4), (32, 2**32)])
def test_other_rings_are_refused(bits, lanes):
    with refused(Code.E_RANGE):
        Ring(bits, lanes)


def test_a_body_of_another_length_is_refused():
    ring = Ring(20, 8)
    for size in (0, ring.packed - 1, ring.packed + 1):
        with refused(Code.MESSAGE_INVALID):
            unpack(ring, bytes(size))

"""Randomness: public worlds replay from a seed, secret noise never does."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from common.randomness import Entropy, ReplayEntropy, SystemEntropy, child, child_numpy, noise_source


def test_a_public_stream_replays_and_every_place_has_its_own() -> None:
    draws = [torch.rand(4, generator=child(1, "cohort", n)).tolist() for n in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert child_numpy(1, "a").bytes(8) == child_numpy(1, "a").bytes(8)
    places = {
        child_numpy(*place).bytes(8) for place in [(1, "a"), (2, "a"), (1, "b"), (1, "a", 0), (1,), (1, "a", "0")]
    }
    assert len(places) == 6


def test_a_draw_elsewhere_moves_nothing_here() -> None:
    torch.manual_seed(0)
    first = torch.rand(3, generator=child(1, "here"))
    torch.rand(100)
    np.random.default_rng(3).random(5)
    assert torch.equal(torch.rand(3, generator=child(1, "here")), first)


def test_system_entropy_never_repeats_whatever_is_seeded() -> None:
    seen = set()
    for _ in range(20):
        torch.manual_seed(42)
        seen.add(SystemEntropy().bytes(16))
    assert len(seen) == 20
    stream = SystemEntropy()
    assert stream.bytes(16) != stream.bytes(16)


def test_replay_entropy_repeats_for_a_seed_and_path_only() -> None:
    same = [ReplayEntropy(7, "noise", 3).words(5) for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], ReplayEntropy(7, "noise", 4).words(5))
    assert not np.array_equal(same[0], ReplayEntropy(8, "noise", 3).words(5))


@pytest.mark.parametrize("entropy", [SystemEntropy(), ReplayEntropy(1)], ids=["system", "replay"])
def test_a_stream_shows_no_state_and_is_not_copied(entropy: Entropy) -> None:
    assert repr(entropy) == type(entropy).__name__
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(entropy)


def test_words_are_the_stream_in_little_endian_order() -> None:
    words = ReplayEntropy(1, "w").words(4)
    assert words.dtype == np.uint64
    assert words.tobytes() == ReplayEntropy(1, "w").bytes(32)


def test_words_are_uniform() -> None:
    bits = np.unpackbits(SystemEntropy().words(20_000).view(np.uint8))
    assert abs(bits.mean() - 0.5) < 6 * 0.5 / np.sqrt(bits.size)


def test_the_kind_decides_and_only_replay_takes_the_seed() -> None:
    assert noise_source("system", 1, "a").kind == "system"
    assert noise_source("system", 1, "a").bytes(8) != noise_source("system", 1, "a").bytes(8)
    assert noise_source("replay", 1, "a").kind == "replay"
    assert noise_source("replay", 1, "a").bytes(8) == ReplayEntropy(1, "a").bytes(8)

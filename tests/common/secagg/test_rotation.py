"""The rotation keeps norms, spreads every vector evenly, and is undone exactly by whoever knows its public seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard

from common.errors import Code, Refusal
from common.secagg.rotation import BLOCK, Rotation, walsh_hadamard


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def draw(size: int) -> np.ndarray:
    return np.random.default_rng(size).normal(size=size)


@given(st.integers(1, 5000), st.binary(min_size=0, max_size=40))
def test_it_is_undone_and_keeps_norms_and_products(dimension, seed):
    rotation, x, y = Rotation(dimension), draw(dimension), draw(dimension + 1)[1:]
    turned = rotation.turn(x, seed)
    np.testing.assert_allclose(rotation.back(turned, seed), x, atol=1e-12)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(x), rel=1e-12)
    assert turned @ rotation.turn(y, seed) == pytest.approx(x @ y, abs=1e-9)


@pytest.mark.parametrize(
    ("dimension", "block"),
    [(2 * BLOCK, BLOCK), (2 * BLOCK + 1, 8192), (3 * BLOCK - 7, BLOCK), (16 * BLOCK + 1, BLOCK), (650, 64), (65, 64)],
)
def test_blocks_are_as_large_as_a_sixteenth_of_padding_allows(dimension, block):
    rotation, x = Rotation(dimension), draw(dimension)
    assert rotation.block == block
    assert 0 <= rotation.lanes - dimension < block
    assert block == 64 or rotation.lanes - dimension <= dimension / 16
    np.testing.assert_allclose(rotation.back(rotation.turn(x, b"s"), b"s"), x, atol=1e-12)


@pytest.mark.parametrize(("dimension", "lanes"), [(1, 1), (2, 2), (3, 4), (33, 64), (64, 64), (BLOCK - 1, BLOCK)])
def test_short_or_nearly_full_vectors_are_one_block_of_the_next_power_of_two(dimension, lanes):
    assert Rotation(dimension).lanes == Rotation(dimension).block == lanes


@pytest.mark.parametrize("width", [1, 3, 16])
def test_the_transform_is_the_matrix_of_sylvester(width):
    columns = draw(64 * width).reshape(64, width)
    expected = hadamard(64) @ columns
    walsh_hadamard(columns)
    np.testing.assert_allclose(columns, expected, atol=1e-12)


def test_blocks_take_every_bth_value_so_that_a_layer_spreads_over_all_of_them():
    """Must: give each of three blocks a third of the energy of any run of neighbouring values."""
    rotation, x = Rotation(3 * BLOCK), np.zeros(3 * BLOCK)
    x[5000:35000] = 1.0
    energy = (rotation.turn(x, b"seed").reshape(-1, 3) ** 2).sum(axis=0)
    np.testing.assert_allclose(energy, 10_000, rtol=1e-9)


def test_any_vector_is_spread_so_that_no_lane_is_much_larger_than_the_others():
    """Must: hold for one single large value as for all equal ones, which a transform without signs would pile up."""
    for x in (np.eye(1, BLOCK, 77)[0], np.full(BLOCK, BLOCK**-0.5), np.sign(draw(BLOCK)) * BLOCK**-0.5):
        assert np.abs(Rotation(BLOCK).turn(x, b"seed")).max() < 6 * BLOCK**-0.5


def test_signs_are_fair_and_of_their_seed_and_length_alone():
    signs = Rotation(BLOCK).signs(b"one")
    assert set(np.unique(signs)) == {-1, 1}
    assert abs(signs.astype(int).sum()) < 6 * BLOCK**0.5
    assert np.array_equal(signs, Rotation(BLOCK).signs(b"one"))
    assert abs(signs.astype(int) @ Rotation(BLOCK).signs(b"two")) < 6 * BLOCK**0.5
    assert abs(signs.astype(int) @ Rotation(2 * BLOCK).signs(b"one")[:BLOCK]) < 6 * BLOCK**0.5


def test_another_seed_does_not_undo_it():
    x = draw(1000)
    other = Rotation(1000).back(Rotation(1000).turn(x, b"one"), b"two")
    assert abs(other @ x) / (x @ x) < 0.2


def test_vectors_of_another_length_are_refused_and_arguments_stay_as_they_are():
    rotation, x = Rotation(10), draw(10)
    for act, length in ((rotation.turn, 11), (rotation.back, 10)):
        with refused(Code.UPDATE_INVALID):
            act(np.zeros(length), b"")
    before, turned = x.copy(), rotation.turn(x, b"")
    kept = turned.copy()
    rotation.back(turned, b"")
    assert np.array_equal(x, before)
    assert np.array_equal(turned, kept)
    for dimension in (0, -1, 2**32):
        with refused(Code.E_RANGE):
            Rotation(dimension)

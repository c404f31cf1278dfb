"""Noise that cancels over rounds: the published errors, and what a turn costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.privacy.correlated import coefficients, column_norm, next_noise, prefix_error


def matrix(rounds, band):
    """C of the factorisation, [rounds, rounds]."""
    diagonals = coefficients(band)
    return sum(np.diag(np.full(rounds - i, c), -i) for i, c in enumerate(diagonals[:rounds]))


@pytest.mark.parametrize(
    ("rounds", "turns", "band", "error"),
    [(128, 8, 16, 8.33), (512, 8, 64, 9.64), (128, 8, 1, 22.7), (512, 8, 1, 45.3), (128, 1, 128, 2.45)],
)
def test_the_error_of_prefix_sums_is_that_of_the_specification(rounds, turns, band, error):
    assert prefix_error(rounds, turns, band) == pytest.approx(error, abs=0.005 * error)


def test_the_whole_root_squares_to_the_prefix_sum():
    root = matrix(40, 40)
    assert np.allclose(root @ root, np.tril(np.ones((40, 40))))


@pytest.mark.parametrize("band", [2, 5, 16])
def test_the_noise_of_all_rounds_solves_the_banded_system(band):
    normal = np.random.default_rng(1).normal(size=(48, 3))
    past, noises = np.zeros((0, 3)), []
    for row in normal:
        noise, past = next_noise(row, past, band)
        noises.append(noise)
        assert len(past) <= band - 1
    assert np.allclose(matrix(48, band) @ np.array(noises), normal)


@pytest.mark.parametrize("band", [2, 4, 16])
def test_turns_that_are_a_band_apart_cost_as_many_releases_and_nearer_ones_more(band):
    root = matrix(64, band)

    def moved(rounds):
        """Most that vectors of norm 1 in these rounds move C x, all of them along one direction."""
        return float(np.linalg.norm(root[:, rounds].sum(axis=1)))

    apart = list(range(0, 64 - band, band))
    assert moved(apart) == pytest.approx(math.sqrt(len(apart)) * column_norm(band))
    assert moved([0, band - 1]) > 1.01 * math.sqrt(2) * column_norm(band)


def test_independent_noise_is_the_band_of_one():
    assert column_norm(0) == column_norm(1) == 1.0
    noise, past = next_noise(np.ones(3), np.zeros((0, 3)), 1)
    assert noise.tolist() == [1.0, 1.0, 1.0]
    assert past.shape == (0, 3)

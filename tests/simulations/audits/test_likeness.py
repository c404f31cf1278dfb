"""PSNR and SSIM against what their definitions give by hand."""

from __future__ import annotations

import numpy as np
import pytest

from simulations.audits.likeness import BEST, psnr, ssim

IMAGE = np.random.default_rng(0).random((1, 8, 8))


def test_equal_images_are_as_alike_as_can_be():
    assert psnr(IMAGE, IMAGE) == BEST
    assert ssim(IMAGE, IMAGE) == pytest.approx(1.0)


def test_psnr_is_the_error_in_decibels():
    assert psnr(np.zeros((1, 4, 4)), np.full((1, 4, 4), 0.1)) == pytest.approx(20.0)


def test_ssim_of_one_window_is_the_formula():
    a, b = IMAGE[:, :5, :5], IMAGE[:, 3:, 3:]
    x, y = a.ravel(), b.ravel()
    cov = np.cov(x, y)
    above = (2 * x.mean() * y.mean() + 1e-4) * (2 * cov[0, 1] + 9e-4)
    below = (x.mean() ** 2 + y.mean() ** 2 + 1e-4) * (cov[0, 0] + cov[1, 1] + 9e-4)
    assert ssim(a, b) == pytest.approx(above / below)


def test_ssim_is_symmetric_and_falls_with_noise():
    stream = np.random.default_rng(1)
    little, much = (IMAGE + size * stream.normal(size=IMAGE.shape) for size in (0.05, 0.5))
    assert ssim(IMAGE, little) == pytest.approx(ssim(little, IMAGE))
    assert 1 > ssim(IMAGE, little) > ssim(IMAGE, much)
    assert ssim(IMAGE, 1 - IMAGE) < 0


def test_channels_are_averaged():
    three = np.concatenate([IMAGE, IMAGE, 1 - IMAGE])
    assert ssim(three, np.concatenate([IMAGE] * 3)) == pytest.approx((2 + ssim(1 - IMAGE, IMAGE)) / 3)

"""How alike two images are: PSNR and SSIM."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.floating]
BEST = 100.0  # decibels; two images that are the same have no finite figure
WINDOW = 7  # pixels, or the whole of a smaller image


def psnr(first: Image, second: Image) -> float:
    """Peak signal to noise ratio in decibels of images with values in [0, 1], at most `BEST`."""
    error = float(((first.astype(np.float64) - second) ** 2).mean())
    return min(BEST, 10 * math.log10(1 / error)) if error > 0 else BEST


def ssim(first: Image, second: Image) -> float:
    """Structural similarity in [-1, 1], 1 for equal images; [channels, height, width] with values in [0, 1].

    Mean over all square windows and channels, with the constants of Wang et al. 2004 and uniform weights.
    """
    side = min(WINDOW, *first.shape[-2:])
    a, b = (_windows(image, side) for image in (first, second))
    mean_a, mean_b = a.mean((-2, -1)), b.mean((-2, -1))
    scale = side * side / (side * side - 1)
    var_a, var_b = a.var((-2, -1)) * scale, b.var((-2, -1)) * scale
    both = ((a * b).mean((-2, -1)) - mean_a * mean_b) * scale
    c1, c2 = 0.01**2, 0.03**2
    above = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return float((above / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))).mean())


def _windows(image: Image, side: int) -> NDArray[np.float64]:
    """Every square of so many pixels, [channels, rows, columns, side, side]."""
    return np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (side, side), (-2, -1))

"""How far integer noise is from the Gaussian that is accounted for."""

from __future__ import annotations

import math

import numpy as np

from common.errors import Code, Refusal

EXACT_BELOW = 64.0  # standard deviation of a sum up to which its probabilities are computed one by one
LEAST = 1e-280  # probabilities below it are left out
SMOOTH = 10.0  # standard deviation from which the divergence bound is proved


def gaussian_divergence(sigma: float, dimension: int) -> float:
    """Bound on KL(discrete Gaussian | Gaussian rounded to integers) over `dimension` lanes, in nats.

    sigma  standard deviation of both, in integers
    A rounded Gaussian added to an integer is a post-processed Gaussian mechanism, so its guarantee carries over.
    Bound: with w(k) = integral over |t| <= 1/2 of exp(-t^2 / 2 s^2) cosh(k t / s^2), the ratio of the two at k,
    Jensen gives w - 1 >= -1 / (24 s^2) and cosh x <= exp(x^2 / 2) gives w - 1 <= k^2 / (24 s^4) exp(k^2 / 8 s^4).
    Hence the chi-squared divergence is at most 4.1 / (24 s^2)^2 <= 1 / (128 s^4) a lane for s >= 10, and KL <= chi^2.
    Errors: Refusal JOB_INVALID below 10, where the bound is not proved.
    """
    if not sigma >= SMOOTH:
        raise Refusal(
            Code.JOB_INVALID,
            f"Noise of {sigma:g} integers",
            f"below {SMOOTH:g} it is not close enough to a Gaussian",
            "Use fewer records a round or a smaller clip, so that the ring leaves a finer scale",
        )
    return dimension / (128 * sigma**4)


def summed_gaussians(sigma: float, terms: int) -> dict[int, float]:
    """Logarithm of the probability of each integer under the sum of `terms` discrete Gaussians, convolved exactly.

    sigma  standard deviation that the terms reach together: each has the parameter sigma / sqrt(terms)
    Integers beyond 2^-128 of the centre of a term are left out, as the sampler never draws them. Every product and
    sum is of positive numbers, so each probability is right to about 1e-15 of itself.
    """
    each = sigma / math.sqrt(terms)
    reach = math.ceil(each * math.sqrt(2 * 128 * math.log(2))) + 1
    single = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * each**2))
    single /= single.sum()
    total = single
    for _ in range(terms - 1):
        total = np.convolve(total, single)
    middle = len(total) // 2
    return {i - middle: math.log(p) for i, p in enumerate(total.tolist()) if p > LEAST}


def sum_distance(sigma: float, terms: int) -> float:
    """Bound on the statistical distance of the sum of `terms` discrete Gaussians of `sigma` each from a single one.

    In one lane; 1 at most. A ratio within e^tau means a distance of at most tau.
    """
    return min(1.0, log_ratio(sigma, terms))


def log_ratio(sigma: float, terms: int) -> float:
    """Bound tau on how far the sum of `terms` discrete Gaussians of `sigma` each is from one of sqrt(terms) sigma.

    In one lane it bounds the difference of the logarithms of their ratios at any two integers.
    Source: Kairouz, Liu and Steinke 2021, theorem 1.
    """
    return 10 * math.fsum(math.exp(-2 * (math.pi * sigma) ** 2 * k / (k + 1)) for k in range(1, terms))

"""Scattering features: their shapes in the literature, their symmetries, and the definition computed the slow way."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.models import scattering
from common.models.scattering import Scattering, paths
from common.randomness import child

Complex = NDArray[np.complex128]


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=child(seed, "image"))


def gabor(side: int, width: float, angle: float, frequency: float, slant: float) -> Complex:
    """A plane wave in a Gaussian envelope, by the formula, summed over neighbouring periods."""
    total = np.zeros((side, side), complex)
    for down in (-2, -1, 0, 1, 2):
        for across in (-2, -1, 0, 1, 2):
            y, x = np.mgrid[down * side : (down + 1) * side, across * side : (across + 1) * side]
            along, aside = np.cos(angle) * y + np.sin(angle) * x, np.cos(angle) * x - np.sin(angle) * y
            total += np.exp(-(along**2 + (slant * aside) ** 2) / (2 * width**2) + 1j * frequency * along)
    return total * slant / (2 * np.pi * width**2)


def convolved(u: NDArray[np.float64], wave: Complex) -> Complex:
    found: Complex = np.fft.ifft2(np.fft.fft2(u) * np.fft.fft2(wave))
    return found


def by_definition(x: NDArray[np.float64], scales: int, orientations: int) -> NDArray[np.float64]:
    """Every path at full resolution; only the averages are thinned. Order: as `Scattering`, for up to two scales."""
    block = 2**scales
    padded = np.pad(x, block, mode="reflect")
    side = len(padded)
    waves = []
    for scale in range(scales):
        for turn in range(orientations):
            place = (side, 0.8 * 2**scale, (orientations // 2 - 1 - turn) * np.pi / orientations)
            wave, bell = (gabor(*place, f, 4 / orientations) for f in (0.75 * np.pi / 2**scale, 0.0))
            waves.append((scale, wave - bell * (wave.sum() / bell.sum())))
    mean = gabor(side, 0.8 * 2 ** (scales - 1), 0.0, 0.0, 1.0)
    first = [(scale, abs(convolved(padded, wave))) for scale, wave in waves]
    second = [abs(convolved(u, wave)) for scale, u in first for coarser, wave in waves if coarser > scale]
    every = [padded, *(u for _, u in first), *second]
    return np.array([convolved(u, mean).real[block:-block:block, block:-block:block] for u in every])


@pytest.mark.parametrize(("scales", "orientations", "side"), [(2, 8, 28), (1, 6, 8)])
def test_features_are_those_of_the_definition(scales: int, orientations: int, side: int) -> None:
    """Up to what thinning inside costs: below one percent of white noise, the hardest image for it."""
    x = image(1, 1, side, side)
    right = by_definition(x[0, 0].double().numpy(), scales, orientations)
    found = Scattering((side, side), scales, orientations)(x)[0].double().numpy()
    orders = (slice(0, 1), slice(1, 1 + scales * orientations), slice(1 + scales * orientations, None))
    for order, allowed in zip(orders, (1e-4, 0.01, 0.02), strict=True):
        assert np.linalg.norm(found[order] - right[order]) <= allowed * np.linalg.norm(right[order])


def test_an_mnist_image_has_81_features_at_49_places() -> None:
    """As in Oyallon et al. and Tramèr and Boneh; of three colours three times as many."""
    assert Scattering((28, 28))(image(2, 1, 28, 28)).shape == (2, 81, 7, 7)
    assert Scattering((32, 32))(image(2, 3, 32, 32)).shape == (2, 243, 8, 8)
    assert Scattering((16, 32), 3, 4)(image(2, 1, 16, 32)).shape == (2, paths(3, 4), 2, 4) == (2, 61, 2, 4)
    assert Scattering((28, 28))(image(0, 1, 28, 28)).shape == (0, 81, 7, 7)


def test_an_even_image_has_its_brightness_as_average_and_no_other_feature() -> None:
    found = Scattering((28, 28))(torch.full((1, 1, 28, 28), 0.7))[0]
    assert torch.allclose(found[0], torch.tensor(0.7), atol=1e-6)
    assert found[1:].abs().max() < 1e-6


def test_brightness_scales_every_feature() -> None:
    transform, x = Scattering((16, 16)), image(1, 1, 16, 16)
    assert torch.allclose(transform(3 * x), 3 * transform(x), rtol=1e-4, atol=1e-6)


def test_a_transposed_image_has_transposed_features_of_mirrored_orientations() -> None:
    transform, x = Scattering((16, 16), 2, 8), image(1, 1, 16, 16)
    found, mirrored = transform(x)[0], transform(x.transpose(-1, -2))[0].transpose(-1, -2)
    assert torch.allclose(mirrored[0], found[0], atol=1e-6)
    for scale in range(2):
        for turn in range(8):
            other = (8 // 2 - 2 - turn) % 8
            assert torch.allclose(mirrored[1 + 8 * scale + other], found[1 + 8 * scale + turn], atol=1e-5)


def test_a_stripe_answers_to_the_wavelet_along_its_wave() -> None:
    """Waves across columns answer to the orientation whose angle is 90 degrees from the rows."""
    columns = torch.cos(0.75 * math.pi * torch.arange(32.0)).expand(32, 32)
    for x, turn in ((columns, 7), (columns.t(), 3)):  # angles of -90 and of 0 degrees
        first = Scattering((32, 32), 2, 8)(x.reshape(1, 1, 32, 32).contiguous())[0, 1:9].mean((1, 2))
        assert int(first.argmax()) == turn
        assert first[turn] > 3 * first.sum() / 8


@pytest.mark.parametrize(("scales", "orientations"), [(2, 8), (1, 8), (3, 8), (2, 4)])
def test_features_do_not_expand_differences(scales: int, orientations: int) -> None:
    """The wavelets and the average together pass no frequency with more than its energy (Littlewood-Paley)."""
    side = 16 * 2**scales
    waves = scattering._wavelets((side, side), scales, orientations).square().sum((0, 1))
    mean = np.abs(np.fft.fft2(gabor(side, 0.8 * 2 ** (scales - 1), 0.0, 0.0, 1.0))) ** 2
    mirrored = torch.roll(torch.flip(waves, (0, 1)), (1, 1), (0, 1))
    assert float((torch.from_numpy(mean) + (waves + mirrored) / 2).max()) <= 1.02
    x, noise = image(20, 1, 32, 32), 0.1 * torch.randn(20, 1, 32, 32, generator=child(1, "noise"))
    transform = Scattering((32, 32), scales, orientations)
    moved = (transform(x + noise) - transform(x)).flatten(1).norm(dim=1) * 2**scales
    assert (moved <= noise.flatten(1).norm(dim=1)).all()


def test_a_moved_image_moves_its_features_less_than_its_pixels() -> None:
    """What averaging is for: a digit one pixel further on is nearly the same digit."""
    x = torch.zeros(1, 1, 28, 28)
    x[..., 6:22, 10:12] = 1.0
    shifted = torch.roll(x, 1, -1)
    transform = Scattering((28, 28))

    def apart(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a - b).norm() / a.norm())

    assert apart(transform(x), transform(shifted)) < 0.5 * apart(x, shifted)


def test_images_are_transformed_by_themselves_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    transform, x = Scattering((8, 8), 1, 4), image(7, 2, 8, 8)
    whole = transform(x)
    monkeypatch.setattr(scattering, "AT_ONCE", 1)
    assert torch.allclose(transform(x), whole, atol=1e-6)
    assert torch.allclose(transform(x[3:4]), whole[3:4], atol=1e-6)
    assert not transform.state_dict()  # nothing of it travels
    assert not list(transform.parameters())


@pytest.mark.parametrize(
    ("sides", "scales", "orientations", "told"),
    [
        ((30, 28), 2, 8, "multiples of 4"),
        ((4, 4), 2, 8, "and larger"),
        ((28, 28), 0, 8, "1 to 6 scales"),
        ((28, 28), 2, 17, "1 to 16 orientations"),
    ],
)
def test_what_cannot_be_transformed_is_refused(
    sides: tuple[int, int], scales: int, orientations: int, told: str
) -> None:
    with pytest.raises(Refusal, match=told) as refused:
        Scattering(sides, scales, orientations)
    assert refused.value.code is Code.CONFIG_INVALID

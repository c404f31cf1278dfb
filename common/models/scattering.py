"""The scattering transform of an image: fixed wavelets and moduli, so features that no record taught."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from common.errors import Code, Refusal

WIDTH = 0.8  # of the envelope of the finest wavelet, in pixels; doubled from scale to scale
FREQUENCY = 0.75 * math.pi  # of the finest wavelet, in radians a pixel; halved from scale to scale
REACH = 2  # images around the period that a wavelet is folded back from
AT_ONCE = 1 << 21  # pixels of coefficients that are held at a time
MOST_ORIENTATIONS = 16


class Scattering(nn.Module):
    """Averages of an image and of the moduli of its wavelet coefficients, of one and of two wavelets in a row.

    scales        J; features are averages over 2^J pixels, one for each 2^J x 2^J pixels
    orientations  L, directions of the wavelets between 0 and 180 degrees
    Maps float32 [n, c, h, w] to [n, c * paths, h / 2^J, w / 2^J] with 1 + JL + L²J(J-1)/2 paths: the average, then
    first order by scale and orientation, then second order (the second wavelet is always coarser).
    Guarantee: no parameter, no state, and each image is transformed by itself. Not expanding: the L2 distance of two
    images' features, times 2^J because one place in 2^J each way is kept, is about that of their pixels at most.
    Errors: Refusal CONFIG_INVALID for sides that are no multiple of 2^J or not above it.
    Source: Bruna and Mallat 2013; Morlet wavelets as in Andreux et al. 2020 (Kymatio).
    """

    def __init__(self, sides: tuple[int, int], scales: int = 2, orientations: int = 8):
        super().__init__()
        _refuse_unfit(sides, scales, orientations)
        self.scales, self.orientations = scales, orientations
        block = 2**scales
        padded = (sides[0] + 2 * block, sides[1] + 2 * block)
        self._pad = [block] * 4
        waves = _wavelets(padded, scales, orientations)
        for level in range(scales):
            for scale in range(level, scales):
                self.register_buffer(f"_waves{level}{scale}", _for_use(waves[scale], level, scale), persistent=False)
            for axis, side in enumerate(sides):
                self.register_buffer(f"_mean{axis}{level}", _averaging(side, scales, level), persistent=False)

    @property
    def paths(self) -> int:
        """Features of one channel at one place."""
        return paths(self.scales, self.orientations)

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        sides = [side + 2 * self._pad[0] for side in images.shape[-2:]]
        count = max(1, AT_ONCE // (sides[0] * sides[1] * self.orientations))
        places = [side // self._pad[0] for side in images.shape[-2:]]
        if not len(images):  # the Fourier transform refuses to transform nothing
            return images.new_zeros(0, images.shape[1] * self.paths, *places)
        flat = images.reshape(-1, 1, *images.shape[-2:])
        found = torch.cat([self._scattered(part) for part in torch.split(flat, count)])
        return found.reshape(len(images), -1, *places)

    def _scattered(self, images: Tensor) -> Tensor:
        """Images [m, 1, h, w] to [m, paths, h / 2^J, w / 2^J]."""
        x = nn.functional.pad(images, self._pad, mode="reflect")
        spectrum = torch.fft.fft2(x)
        first = [self._modulus(spectrum, scale, 0) for scale in range(self.scales)]  # [m, L, side, side]
        second = []
        for scale, u in enumerate(first[:-1]):
            inner = torch.fft.fft2(u)[:, :, None]  # [m, L, 1, side, side]
            for coarser in range(scale + 1, self.scales):
                found = self._modulus(inner, coarser, scale)
                second.append(self._averaged(found.flatten(1, 2), coarser))
        return torch.cat([self._averaged(x, 0), *map(self._averaged, first, range(self.scales)), *second], 1)

    def _modulus(self, spectrum: Tensor, scale: int, level: int) -> Tensor:
        """|u * wavelet| of every orientation, one pixel in 2^scale, from the spectrum of u, one pixel in 2^level."""
        waves: Tensor = getattr(self, f"_waves{level}{scale}")
        found: Tensor = torch.fft.ifft2(_folded(spectrum, 2 ** (scale - level), waves)).abs()
        return found

    def _averaged(self, u: Tensor, level: int) -> Tensor:
        """Averages over 2^J pixels of u [m, k, side, side], one pixel in 2^level."""
        rows, columns = (getattr(self, f"_mean{axis}{level}") for axis in (0, 1))
        found: Tensor = ((u @ columns.t()).transpose(-1, -2) @ rows.t()).transpose(-1, -2)
        return found


def paths(scales: int, orientations: int) -> int:
    """Features of one channel at one place: 81 for two scales and eight orientations."""
    return 1 + scales * orientations + orientations**2 * scales * (scales - 1) // 2


def _folded(spectrum: Tensor, step: int, weights: Tensor | None = None) -> Tensor:
    """`spectrum` times `weights`, its `step` x `step` blocks added up: the spectrum of every `step`-th pixel."""
    high, wide = (side // step for side in spectrum.shape[-2:])
    total: Tensor = spectrum.new_zeros(())
    for row in range(step):
        for column in range(step):
            place = (..., slice(row * high, (row + 1) * high), slice(column * wide, (column + 1) * wide))
            total = total + (spectrum[place] if weights is None else spectrum[place] * weights[place])
    return total


def _for_use(waves: Tensor, level: int, scale: int) -> Tensor:
    """Spectra of wavelets for images of one pixel in 2^level, whose product is folded to one pixel in 2^scale."""
    found: Tensor = _folded(waves, 2**level) / 4 ** (scale - level)
    return found.to(torch.float32)


def _wavelets(sides: tuple[int, int], scales: int, orientations: int) -> Tensor:
    """Spectra of all Morlet wavelets, float64 [J, L, *sides]; real, because a wavelet is symmetric up to conjugation.

    A Morlet wavelet is a plane wave in an elongated Gaussian envelope, less so much of the envelope that its mean is 0.
    """
    found = []
    for scale in range(scales):
        for turn in range(orientations):
            angle = (orientations // 2 - 1 - turn) * math.pi / orientations
            wave, envelope = _gabor(sides, WIDTH * 2**scale, angle, FREQUENCY / 2**scale, 4.0 / orientations)
            found.append(torch.fft.fft2(wave - envelope * (wave.sum() / envelope.sum())).real)
    return torch.stack(found).reshape(scales, orientations, *sides)


def _gabor(sides: tuple[int, int], width: float, angle: float, frequency: float, slant: float) -> tuple[Tensor, Tensor]:
    """A plane wave in a Gaussian envelope, complex128 [*sides], and the envelope; both periodic in the sides.

    slant  width along the wave over width across it
    """
    wave = torch.zeros(sides, dtype=torch.complex128)
    envelope = torch.zeros(sides, dtype=torch.complex128)
    cosine, sine = math.cos(angle), math.sin(angle)
    for down in range(-REACH, REACH + 1):
        for across in range(-REACH, REACH + 1):
            y = (torch.arange(sides[0], dtype=torch.float64) + down * sides[0])[:, None]
            x = (torch.arange(sides[1], dtype=torch.float64) + across * sides[1])[None, :]
            along, aside = cosine * y + sine * x, cosine * x - sine * y
            bell = torch.exp(-(along**2 + (slant * aside) ** 2) / (2 * width**2)).to(torch.complex128)
            envelope += bell
            wave += bell * torch.exp(1j * frequency * along)
    scale = slant / (2 * math.pi * width**2)
    return wave * scale, envelope * scale


def _averaging(side: int, scales: int, level: int) -> Tensor:
    """The rows that average a padded side, one pixel in 2^level: float32 [side / 2^J, (side + 2 * 2^J) / 2^level].

    A Gaussian as wide as the coarsest wavelet, around each 2^J-th pixel of the image; each row sums to 1.
    """
    block, length = 2**scales, side + 2 * 2**scales
    at = torch.arange(0, length, 2**level, dtype=torch.float64)
    centres = torch.arange(block, block + side, block, dtype=torch.float64)[:, None]
    bells = sum(
        torch.exp(-((at + turn * length - centres) ** 2) / (2 * (WIDTH * 2 ** (scales - 1)) ** 2))
        for turn in range(-REACH, REACH + 1)
    )
    rows = torch.as_tensor(bells)
    return (rows / rows.sum(1, keepdim=True)).to(torch.float32)


def _refuse_unfit(sides: tuple[int, int], scales: int, orientations: int) -> None:
    if not 1 <= scales <= 6 or not 1 <= orientations <= MOST_ORIENTATIONS:
        raise Refusal(
            Code.CONFIG_INVALID,
            "scattering settings",
            f"they need 1 to 6 scales and 1 to {MOST_ORIENTATIONS} orientations",
            "Correct them",
        )
    block = 2**scales
    if any(side % block or side <= block for side in sides):
        raise Refusal(
            Code.CONFIG_INVALID,
            f"scattering of {sides[0]}x{sides[1]} pixels",
            f"{scales} scales need sides that are multiples of {block}, and larger",
            "Use fewer scales, or images of another size",
        )

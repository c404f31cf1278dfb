"""A small convolutional network for images from 8x8 pixels on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from torch import nn

from common.errors import Code, Refusal
from common.models.blocks import Activation, Norm, activation, channel_norm


@dataclass(frozen=True, kw_only=True)
class CnnSettings:
    """Blocks of convolution, norm, activation and halving, then one hidden layer.

    channels  of each block; the image is halved after each       kernel  odd side of the filters
    hidden    units of the layer before the logits; 0 leaves it out
    """

    channels: tuple[int, ...] = (8, 16)
    kernel: int = 3
    hidden: int = 32
    activation: Activation = "tanh"  # bounded activations train better under clipping (Papernot et al. 2021)
    norm: Norm = "none"

    def __post_init__(self) -> None:
        sizes_fit = self.channels and all(1 <= c <= 4096 for c in self.channels) and 0 <= self.hidden <= 1 << 16
        if not sizes_fit or self.kernel not in range(1, 16, 2):
            raise Refusal(
                Code.CONFIG_INVALID,
                "cnn settings",
                "they need 1 to 4096 channels in each block, an odd kernel up to 15 and hidden >= 0",
                "Correct the sizes",
            )


def cnn(inputs: tuple[int, ...], outputs: int, settings: CnnSettings) -> nn.Module:
    """Images [n, channels, height, width] to logits [n, outputs].

    Errors: Refusal CONFIG_INVALID for inputs that are no image, or that halving would shrink to nothing.
    """
    side = 1 << len(settings.channels)
    if len(inputs) != 3 or min(inputs[1:]) < side:
        raise Refusal(
            Code.CONFIG_INVALID,
            f"cnn over inputs of shape {list(inputs)}",
            f"{len(settings.channels)} halvings need an image of at least {side}x{side} pixels",
            "Give the image's shape as channels, height, width, or use fewer blocks",
        )
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise((inputs[0], *settings.channels)):
        layers += [
            nn.Conv2d(before, after, settings.kernel, padding=settings.kernel // 2),
            channel_norm(settings.norm, after),
            activation(settings.activation),
            nn.AvgPool2d(2),
        ]
    width = settings.channels[-1] * (inputs[1] // side) * (inputs[2] // side)
    layers.append(nn.Flatten())
    if settings.hidden:
        layers += [nn.Linear(width, settings.hidden), activation(settings.activation)]
    return nn.Sequential(*layers, nn.Linear(settings.hidden or width, outputs))

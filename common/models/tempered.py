"""The small convolutional network that the literature on private training compares by, with bounded activations."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from common.catalogue import NoSettings
from common.errors import Code, Refusal

CHANNELS = (16, 32)
HIDDEN = 32
LEAST = 14  # pixels a side


class Peaks(nn.Module):
    """Maximum over each 2x2 neighbours: [n, c, h, w] to [n, c, h - 1, w - 1].

    With channels side by side in memory, which processors do in a fraction of the time; the numbers are the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        side_by_side = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return functional.max_pool2d(side_by_side, 2, 1).contiguous()


def tempered_cnn(inputs: tuple[int, ...], outputs: int, _: NoSettings) -> nn.Module:
    """Images [n, channels, height, width] to logits [n, outputs]; 26 010 parameters for 28x28 pixels and ten classes.

    Two convolutions, each with tanh and maximum over 2x2 neighbours, one hidden layer. Tanh is the tempered sigmoid
    that its authors found best: a bounded activation keeps gradients near the clipping bound.
    Errors: Refusal CONFIG_INVALID for inputs that are no image of at least 14x14 pixels.
    Source: Papernot et al. 2021 (the network of their MNIST experiments).
    """
    if len(inputs) != 3 or min(inputs[1:]) < LEAST:
        raise Refusal(
            Code.CONFIG_INVALID,
            f"tempered-cnn over inputs of shape {list(inputs)}",
            f"it needs an image of at least {LEAST}x{LEAST} pixels",
            "Give the image's shape as channels, height, width, or choose the model cnn",
        )
    high, wide = (_shrunk(side) for side in inputs[1:])
    return nn.Sequential(
        nn.Conv2d(inputs[0], CHANNELS[0], 8, stride=2, padding=3),
        nn.Tanh(),
        Peaks(),
        nn.Conv2d(*CHANNELS, 4, stride=2),
        nn.Tanh(),
        Peaks(),
        nn.Flatten(),
        nn.Linear(CHANNELS[1] * high * wide, HIDDEN),
        nn.Tanh(),
        nn.Linear(HIDDEN, outputs),
    )


def _shrunk(side: int) -> int:
    """What two convolutions and two poolings leave of a side: 4 of 28."""
    first = (side + 6 - 8) // 2 + 1 - 1
    return (first - 4) // 2 + 1 - 1

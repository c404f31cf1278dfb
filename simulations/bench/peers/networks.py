"""The two models of the measured rounds, from torch alone, so that every peer trains the very same."""

from __future__ import annotations

from torch import nn

CLASSES, SIDE = 10, 28


def convolutional() -> nn.Module:
    """Two convolutions with maximum over 2x2, two linear layers: 114 314 parameters for 28x28 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 64),
        nn.ReLU(),
        nn.Linear(64, CLASSES),
    )


def two_layers() -> nn.Module:
    """784-64-10, 50 890 parameters."""
    return nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 64), nn.ReLU(), nn.Linear(64, CLASSES))


NETWORKS = {114_314: convolutional, 50_890: two_layers}  # by their parameters

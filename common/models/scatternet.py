"""Scattering features of an image and one linear layer: nothing but that layer is learned."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import nn

from common.errors import Code, Refusal
from common.models.front import Fronted
from common.models.linear import LinearSettings, logistic
from common.models.scattering import Scattering


@dataclass(frozen=True, kw_only=True)
class ScatterNetSettings:
    """Fixed wavelet features and a linear layer.

    scales        features are averages over 2^scales pixels
    orientations  of the wavelets
    groups        groups of features that are brought to mean 0 and deviation 1 within each record; 0 leaves it out
    """

    scales: int = 2
    orientations: int = 8
    groups: int = 27


def scatternet(inputs: tuple[int, ...], outputs: int, settings: ScatterNetSettings) -> nn.Module:
    """Images [n, channels, height, width] to logits [n, outputs]; all weights start at zero, the problem is convex.

    Errors: Refusal CONFIG_INVALID for inputs that are no image or whose sides do not fit the scales, and for groups
    that do not divide the features.
    Source: Tramèr and Boneh 2021 (their linear ScatterNet, with group normalisation).
    """
    if len(inputs) != 3:
        why = "wavelets need an image"
        shown = f"scatternet over inputs of shape {list(inputs)}"
        raise Refusal(Code.CONFIG_INVALID, shown, why, "Give the image's shape as channels, height, width")
    scattering = Scattering((inputs[1], inputs[2]), settings.scales, settings.orientations)
    features = inputs[0] * scattering.paths
    if settings.groups < 0 or (settings.groups and features % settings.groups):
        raise Refusal(
            Code.CONFIG_INVALID,
            f"groups = {settings.groups}",
            f"the image has {features} features at each place, which so many groups do not divide",
            "Choose a divisor of that number, or 0",
        )
    norm = nn.GroupNorm(settings.groups, features, affine=False) if settings.groups else nn.Identity()
    places = [side // 2**settings.scales for side in inputs[1:]]
    head = logistic((features, *places), outputs, LinearSettings())
    return Fronted(nn.Sequential(OrderedDict(scattering=scattering, norm=norm)), head)

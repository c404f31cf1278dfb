"""Adding and taking away masks: a pair's mask is added by the site of the smaller id and taken away by the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from common.secagg.masks import Lanes, add_masks


def apply(plus: Sequence[bytes], minus: Sequence[bytes], lanes: Lanes) -> None:
    """lanes += Σ PRG(plus) - Σ PRG(minus), in place, mod 2^16 or 2^32. Keys of 32 bytes."""
    add_masks(plus, lanes)
    if minus:
        np.negative(lanes, out=lanes)
        add_masks(minus, lanes)
        np.negative(lanes, out=lanes)


def sides(site: int, keys: Mapping[int, bytes]) -> tuple[list[bytes], list[bytes]]:
    """The mask keys of `site` by peer: those that it adds, and those that it takes away."""
    plus = [key for peer, key in keys.items() if site < peer]
    return plus, [key for peer, key in keys.items() if site > peer]

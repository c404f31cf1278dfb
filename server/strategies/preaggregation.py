"""What can come before a rule: shorten rows, by a bound or by rank; or mix them, by nearness or in buckets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from common.catalogue import Catalogue, Entry, NoSettings, catalogue
from common.config import finite
from server.strategies.geometry import distances, shortened
from server.strategies.strategy import Rows64
from server.strategies.voting import Stage, majority


def clip(bound: float) -> Stage:
    """Rows longer than `bound` are cut to that length.

    Guarantee: no row is longer. Honest rows are cut too: choose a bound that they seldom reach.
    Source: Sun et al. 2019 (norm thresholding).
    """
    return Stage(lambda rows, _: shortened(rows, bound), lambda rows, _: rows)


def adaptive_clip() -> Stage:
    """The k = floor(2 f (m - f) / m) longest rows are cut to the length of the next one (ARC).

    Guarantee: a rule with kappa has (sqrt(kappa) + sqrt(2 f / (m - 2f)))^2 behind it at most, and no row is longer than
    the longest honest one. Source: Allouah et al. 2025 (adaptive robust clipping).
    """

    def apply(rows: Rows64, liars: int) -> Rows64:
        lengths = np.sort(np.linalg.norm(rows, axis=1))[::-1]
        return shortened(rows, float(lengths[2 * liars * (len(rows) - liars) // len(rows)]))

    return Stage(apply, lambda rows, liars: max(rows, majority(liars)))


def nearest_mixing() -> Stage:
    """Each row becomes the mean of the m - f rows that are nearest to it, itself among them (NNM).

    Guarantee, for 2f < m: a rule with kappa has 8 f / (m - f) (kappa + 1) behind it at most, of order f / m where the
    rule alone has a constant. Source: Allouah et al. 2023 (nearest neighbour mixing).
    """

    def apply(rows: Rows64, liars: int) -> Rows64:
        keep = len(rows) - liars
        nearest = np.argsort(distances(rows), axis=1, kind="stable")[:, :keep]
        chosen = np.zeros((len(rows), len(rows)))
        np.put_along_axis(chosen, nearest, 1.0, axis=1)
        mixed: Rows64 = chosen @ rows / keep
        return mixed

    return Stage(apply, lambda rows, liars: max(rows, majority(liars)))


def bucketing(size: int) -> Stage:
    """Rows next to each other are averaged, `size` at a time; the last bucket may hold fewer.

    Guarantee: f liars spoil f buckets at most, so the rule must outvote them among ceil(m / size). The order of rows
    must be random and not the liars' choice; that of groups is (`server.groups`). Honest buckets then spread less:
    their variance is that of rows over `size`, in expectation.
    Source: Karimireddy, He and Jaggi 2022.
    """

    def apply(rows: Rows64, _: int) -> Rows64:
        return np.stack([rows[first : first + size].mean(axis=0) for first in range(0, len(rows), size)])

    return Stage(apply, lambda rows, _: (rows - 1) * size + 1)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """clip: largest length of a row, in model units; no default, for it depends on the model."""

    clip: float

    def __post_init__(self) -> None:
        finite(self.clip, "clip", above=0.0)


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """bucket: rows that are averaged together."""

    bucket: int

    def __post_init__(self) -> None:
        finite(self.bucket, "bucket", at_least=2, at_most=64)


SHORTENING: Catalogue[Stage] = catalogue(
    Entry(
        name="clip",
        summary="rows cut to a length",
        paper="Sun et al. 2019",
        settings=Clip,
        make=lambda s: clip(s.clip),
    ),
    Entry(
        name="arc",
        summary="the longest rows cut to the length of the next one; how many follows from the liars",
        paper="Allouah et al. 2025, adaptive robust clipping",
        settings=NoSettings,
        make=lambda _: adaptive_clip(),
    ),
)
MIXING: Catalogue[Stage] = catalogue(
    Entry(
        name="nnm",
        summary="each row replaced by the mean of its nearest ones",
        paper="Allouah et al. 2023",
        settings=NoSettings,
        make=lambda _: nearest_mixing(),
    ),
    Entry(
        name="bucketing",
        summary="rows averaged a few at a time",
        paper="Karimireddy et al. 2022",
        settings=Bucket,
        make=lambda s: bucketing(s.bucket),
    ),
)

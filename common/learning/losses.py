"""Losses of single records: the loss of a record never depends on another record of its batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from common.catalogue import Catalogue, Entry, NoSettings, catalogue
from common.ranges import not_negative

PerRecord = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # logits [n, k], labels int64 [n] -> losses [n]


@dataclass(frozen=True, kw_only=True)
class FocalSettings:
    """focus: how strongly well-classified records are damped; 0 gives cross-entropy."""

    focus: float = 2.0

    def __post_init__(self) -> None:
        not_negative(self.focus, "focus")


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Minus the log-likelihood of the label, in nats; a single logit is read as that of class 1."""
    if logits.shape[1] == 1:
        return functional.binary_cross_entropy_with_logits(logits[:, 0], labels.to(logits.dtype), reduction="none")
    return functional.cross_entropy(logits, labels, reduction="none")


def brier(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Squared distance of the probabilities from the label; at most 2, and 1 for two classes with one logit."""
    if logits.shape[1] == 1:
        return (torch.sigmoid(logits[:, 0]) - labels.to(logits.dtype)).square()
    target = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return (torch.softmax(logits, 1) - target).square().sum(1)


def focal(settings: FocalSettings) -> PerRecord:
    """(1 - p)^focus times the cross-entropy, p the probability of the label."""

    def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        entropy = cross_entropy(logits, labels)
        # 1 - p as -expm1(-entropy): exact where p is close to 1; clamped where the power has no finite slope.
        return (-torch.expm1(-entropy)).clamp_min(1e-7).pow(settings.focus) * entropy

    return loss


LOSSES: Catalogue[PerRecord] = catalogue(
    Entry(
        name="cross-entropy",
        summary="minus the log-likelihood of the label; logistic loss for two classes",
        paper="Cox 1958",
        settings=NoSettings,
        make=lambda _: cross_entropy,
    ),
    Entry(
        name="focal",
        summary="cross-entropy that damps records already classified well",
        paper="Lin et al. 2017",
        settings=FocalSettings,
        make=focal,
    ),
    Entry(
        name="brier",
        summary="squared error of the predicted probabilities; bounded",
        paper="Brier 1950",
        settings=NoSettings,
        make=lambda _: brier,
    ),
)

"""What is predicted and how one record's prediction is judged: two classes with one logit, or many."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from common.catalogue import find
from common.learning.losses import LOSSES, PerRecord
from common.models.catalogue import outputs_of


@dataclass(frozen=True)
class Task:
    """Classification into `classes` classes. Each function looks at one record at a time.

    logits  float32 [n, outputs]      labels  int64 [n]
    """

    classes: int
    losses: PerRecord  # logits, labels -> float32 [n]

    @property
    def name(self) -> str:
        """ "binary" or "multiclass"."""
        return "binary" if self.classes == 2 else "multiclass"

    @property
    def outputs(self) -> int:
        """Logits of the model."""
        return outputs_of(self.classes)

    def predictions(self, logits: torch.Tensor) -> torch.Tensor:
        """The likelier class, int64 [n]; of equally likely ones the first, so a logit of 0 says class 0."""
        # By the score, not the logit: a logit so small that its score rounds to 0.5 must be judged as the counts do.
        return (torch.sigmoid(logits[:, 0]) > 0.5).long() if self.outputs == 1 else self.scores(logits).argmax(1)

    def correct(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """1.0 where the prediction is the label, else 0.0, float32 [n]."""
        return (self.predictions(logits) == labels).to(torch.float32)

    def scores(self, logits: torch.Tensor) -> torch.Tensor:
        """Probability of every class, float32 [n, classes]; the rows sum to 1."""
        if self.outputs == 1:
            return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], 1)
        return torch.softmax(logits, 1)


def task(classes: int, loss: str = "cross-entropy", **settings: float) -> Task:
    """The task of a label with so many classes. Errors: Refusal CONFIG_INVALID."""
    outputs_of(classes)
    entry = find(LOSSES, loss, "loss")
    return Task(classes, entry.make(entry.read(settings)))

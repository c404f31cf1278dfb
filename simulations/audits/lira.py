"""Likelihood-ratio attack: a record is a member if the model's confidence is that of models which saw it.

Source: Carlini et al. 2022, algorithm 1 ("LiRA"), with variances shared by all records, as it is for few models.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.data import Records
from common.errors import Code, Refusal
from common.learning.tasks import Task

Scores = NDArray[np.float64]
SMALLEST = 1e-6  # a spread of confidences below it is none


@dataclass(frozen=True)
class Shadows:
    """Models trained like the attacked one on other draws of the same records.

    members      bool [k, n], which record was in which model's data
    confidences  float64 [k, n], of each model in the label of each record
    Errors: Refusal DATA_INVALID if some record was in no model, or in all.
    """

    members: NDArray[np.bool_]
    confidences: Scores

    def __post_init__(self) -> None:
        seen = self.members.sum(0)
        if self.members.shape != self.confidences.shape or (seen == 0).any() or (seen == len(self.members)).any():
            why = "each record must be in some shadow models and out of others"
            raise Refusal(Code.DATA_INVALID, "Records not attacked", why, "Train more shadow models")

    def inside(self) -> tuple[Scores, float]:
        """Mean confidence in each record of the models that saw it, and their spread around it."""
        return self._of(self.members)

    def outside(self) -> tuple[Scores, float]:
        """The same of the models that did not see it."""
        return self._of(~self.members)

    def _of(self, chosen: NDArray[np.bool_]) -> tuple[Scores, float]:
        counts = chosen.sum(0)
        means = (self.confidences * chosen).sum(0) / counts
        squares = float((chosen * (self.confidences - means) ** 2).sum())
        freedom = max(1, int(counts.sum()) - counts.size)
        return means, max(SMALLEST, (squares / freedom) ** 0.5)


def online(shadows: Shadows, confidences: Scores) -> Scores:
    """Log-likelihood ratio of in and out for each record, from models of both kinds."""
    (seen, seen_spread), (unseen, spread) = shadows.inside(), shadows.outside()
    return _log_normal(confidences, seen, seen_spread) - _log_normal(confidences, unseen, spread)


def offline(shadows: Shadows, confidences: Scores) -> Scores:
    """How far the confidence lies above that of models that never saw the record, in their spread."""
    unseen, spread = shadows.outside()
    return (confidences - unseen) / spread


@torch.no_grad()
def confidence(model: nn.Module, task: Task, records: Records) -> Scores:
    """log(p / (1 - p)) of the label's probability p, float64 [n], computed from logits so that none is infinite."""
    model.eval()
    logits = model(records.inputs).double()
    if task.outputs == 1:
        return np.asarray((logits[:, 0] * (2 * records.labels - 1)).numpy(), np.float64)
    label = logits.gather(1, records.labels[:, None])[:, 0]
    others = logits.scatter(1, records.labels[:, None], -torch.inf)
    return np.asarray((label - torch.logsumexp(others, 1)).numpy(), np.float64)


def _log_normal(values: Scores, means: Scores, spread: float) -> Scores:
    found: Scores = -0.5 * ((values - means) / spread) ** 2 - np.log(spread)
    return found

"""How a site trains on its own records in one round; the table [training] of a job."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import nn

from common.catalogue import find
from common.config import finite
from common.errors import Code, Refusal
from common.learning.losses import LOSSES
from common.learning.optimizers import OPTIMIZERS, optimizer
from common.learning.tasks import Task, task
from common.ranges import not_negative

MOST_LOCAL_STEPS = 100_000


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """Public settings of local training. The label of the data says which task it is.

    learning_rate       of the local optimizer; no default, it is never right for all
    local_steps         batches a site trains on before it reports; 1 sends gradients (FedSGD)
    batch               records of a batch without record-level privacy, which draws its own by sampling_rate; a site
                        goes through all its records before it takes one again
    proximal            pull towards the parameters of the round's start (FedProx's mu), 0 without
    optimizer_settings  as the catalogue of optimizers lists them      loss_settings  likewise
    """

    learning_rate: float
    optimizer: str = "sgd"
    local_steps: int = 1
    batch: int = 32
    proximal: float = 0.0
    loss: str = "cross-entropy"
    optimizer_settings: dict[str, float | bool] = field(default_factory=dict)
    loss_settings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        finite(self.learning_rate, "learning_rate", above=0.0)
        find(OPTIMIZERS, self.optimizer, "optimizer").read(self.optimizer_settings)
        find(LOSSES, self.loss, "loss").read(self.loss_settings)
        if not 1 <= self.local_steps <= MOST_LOCAL_STEPS:
            raise Refusal(
                Code.CONFIG_INVALID,
                f"local_steps = {self.local_steps}",
                f"it must lie between 1 and {MOST_LOCAL_STEPS}",
                "Correct it",
            )
        finite(self.batch, "batch", above=0, at_most=2**31)
        not_negative(self.proximal, "proximal")

    def task(self, classes: int) -> Task:
        """The task of a label with so many classes, with this plan's loss."""
        return task(classes, self.loss, **self.loss_settings)

    def optimizer_of(self, model: nn.Module) -> torch.optim.Optimizer:
        """A new local optimizer over the trainable parameters of `model`."""
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return optimizer(self.optimizer, trainable, self.learning_rate, **self.optimizer_settings)

"""What trains the sites of a round: a site's lesson, the course that all take, and what a kernel gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.errors import Code, Refusal
from common.learning.batches import Batches
from common.learning.plan import TrainingPlan
from common.learning.tasks import Task
from common.parameters import Flat


@dataclass(frozen=True)
class Course:
    """What all sites of a round do alike.

    model  what learns: a job's model, or its head where it has a fixed front (`common.models.front.parted`); a kernel
           copies it and never changes it
    task   how a record is judged      plan  optimizer and steps
    """

    model: nn.Module
    task: Task
    plan: TrainingPlan

    def trainable(self) -> list[nn.Parameter]:
        """The parameters that travel, in the order in which they are flattened."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def size(self) -> int:
        """Number of trainable scalars, d."""
        return sum(parameter.numel() for parameter in self.trainable())


@dataclass(frozen=True, repr=False, eq=False)
class Lesson:
    """One site's part in a round. Never printed.

    inputs   float32 [n, *shape], as the course's model takes them      labels  int64 [n]
    batches  row numbers, at least one for each step (`common.learning.batches`); without any step the update is zero
    weight   of its update in a sum
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    batches: Batches
    weight: float = 1.0


@dataclass(frozen=True, repr=False, eq=False)
class Total:
    """The weighted sum of many updates. Not private yet: never sent.

    sum     float64 [d], of weight * (update clipped); an update that is not finite adds nothing
    usable  bool [n], in the order of lessons: the update is finite
    norms   float64 [n], L2 norms before clipping, infinite where not usable; None where nothing was clipped
    """

    sum: NDArray[np.float64]
    usable: NDArray[np.bool_]
    norms: NDArray[np.float64] | None


class Kernel(Protocol):
    """One way to train many sites; all agree with `client.trainer.train_on` up to float32 rounding.

    Lessons come from an iterator and are let go of after their turn: a site's records need exist only then. A kernel
    is for one thread of one process, and leaves torch's number of threads to its caller.
    """

    @property
    def name(self) -> str:
        """As reports print it."""

    def updates(self, parameters: Flat, lessons: Iterable[Lesson]) -> NDArray[np.float32]:
        """Parameters after minus before, float32 [n, d], in the order of `lessons` and the layout of `flatten`.

        Rows of sites whose training diverged are not finite. Errors: Refusal UPDATE_INVALID for parameters that do
        not fit the model, DATA_INVALID for batches that name rows which a lesson has not.
        """

    def total(self, parameters: Flat, lessons: Iterable[Lesson], clip: float | None) -> Total:
        """The sum over lessons of weight * update * min(1, clip / norm); None clips nothing.

        Guarantee: no more memory than for a few sites at a time, however many lessons there are; a site adds at most
        |weight| * clip in L2 norm, up to float32 rounding.
        Errors: as `updates`; Refusal CONFIG_INVALID for a clip that is not positive.
        """


@dataclass(frozen=True)
class Kind:
    """A kind of kernel.

    unfit  course -> why its kernel would not be right, or None where it is
    make   course -> a kernel; only where `unfit` gives None
    """

    name: str
    unfit: Callable[[Course], str | None] = field(repr=False)
    make: Callable[[Course], Kernel] = field(repr=False)


class Step(NamedTuple):
    """parameters - rate * gradient, after they have gone the share `pull` of the way back to the round's start."""

    rate: float
    pull: float

    @classmethod
    def of(cls, plan: TrainingPlan) -> Step:
        """FedProx (Li et al. 2020) adds proximal * (parameters - start) to the gradient; 0 is plain descent."""
        return cls(plan.learning_rate, plan.learning_rate * plan.proximal)


def plain_steps(course: Course) -> str | None:
    """Why local steps are not those of `Step` on the processor, or None where they are."""
    plan = course.plan
    if plan.optimizer != "sgd":
        return f"the optimizer {plan.optimizer} keeps more than the parameters"
    if plan.optimizer_settings.get("weight_decay", 0.0):
        return "weights decay"
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in course.trainable()):
        return "parameters are not float32 on the processor"
    return None


def refuse_outside(rows: NDArray[np.int64], counts: NDArray[np.int64] | int) -> None:
    """Errors: Refusal DATA_INVALID for row numbers that lie outside of a lesson's `counts` records."""
    if (rows < 0).any() or (rows >= counts).any():
        why = "its batches name records that it has not"
        raise Refusal(Code.DATA_INVALID, "Lesson not taught", why, "Draw them from the same records")

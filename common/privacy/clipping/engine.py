"""What a clipping engine gives: the sum of per-record gradients, each of L2 norm at most the bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.config import finite
from common.errors import Code, Refusal

PerRecord = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # outputs [m, k], labels [m] -> losses [m]

FLOATS_AT_ONCE = 1 << 22  # per-record gradients held at one time: 16 MiB of float32, 32 MiB more while summing
RECORDS_AT_ONCE = 256  # bounds the activations of a micro-batch
SHRINK = 1.0 - 1e-12  # keeps a clipped norm at or below the bound in spite of float64 rounding


@dataclass(frozen=True, repr=False, eq=False)
class ClippedSum:
    """The clipped sum of one batch and what else of each record the site itself needs. Not private yet: never sent.

    total    float64 [d], the sum in the order of `parameters.flatten`
    losses   float32 [n], 0 where a record is not usable       outputs  float32 [n, k], 0 likewise
    usable   bool [n]: the record's loss and gradient are finite; others add nothing
    """

    total: NDArray[np.float64]
    losses: torch.Tensor
    outputs: torch.Tensor
    usable: torch.Tensor

    @property
    def bad(self) -> int:
        """Records that added nothing because their loss or gradient is not finite. Stays at the site."""
        return int((~self.usable).sum())


class ClipEngine(Protocol):
    """One way to compute per-record gradients; all agree up to float32 rounding."""

    def clipped_sum(
        self, model: nn.Module, per_record_loss: PerRecord, inputs: torch.Tensor, labels: torch.Tensor, bound: float
    ) -> ClippedSum:
        """The sum over the records of gradient * min(1, bound / norm).

        per_record_loss  outputs, labels -> one loss a record, each from its own row only
        inputs, labels   the batch, [n, ...] and [n]; n = 0 gives zeros
        Guarantee: adding or removing one record moves `total` by at most `bound` in L2 norm (the model must have
        passed `validate`). The same batch in the same order gives the same bits; the model is left as it was.
        Errors: Refusal CONFIG_INVALID for a bound that is not positive, DATA_INVALID for unequal lengths.
        """


Gradients = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


def summed(model: nn.Module, of: Gradients, inputs: torch.Tensor, labels: torch.Tensor, bound: float) -> ClippedSum:
    """`ClipEngine.clipped_sum` over micro-batches, for engines that give per-record gradients.

    of  inputs, labels of a micro-batch -> outputs [m, k], losses [m], gradients float32 [m, d]
    """
    finite(bound, "clipping bound", above=0.0)
    if len(inputs) != len(labels):
        raise Refusal(Code.DATA_INVALID, "Batch not used", "inputs and labels differ in number", "Pass equal lengths")
    total = np.zeros(sum(parameter.numel() for parameter in trainable(model)))
    outputs, losses, usable = [], [], []
    with training(model):
        for rows in _micro_batches(len(inputs), total.size):
            out, loss, gradients = of(inputs[rows], labels[rows])
            good = _add_clipped(total, gradients, torch.isfinite(loss), bound)
            outputs.append(torch.where(good[:, None], out, 0.0))
            losses.append(torch.where(good, loss, 0.0))
            usable.append(good)
    return ClippedSum(
        total=total,
        losses=torch.cat(losses) if losses else torch.zeros(0),
        outputs=torch.cat(outputs) if outputs else torch.zeros(0, 0),
        usable=torch.cat(usable) if usable else torch.zeros(0, dtype=torch.bool),
    )


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that travel, in the order in which they are flattened."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Training mode for the length of a block; every module then gets back the mode it had."""
    before = [(module, module.training) for module in model.modules()]
    model.train()
    try:
        yield
    finally:
        for module, mode in before:
            module.training = mode


def _micro_batches(count: int, parameters: int) -> Iterator[slice]:
    """Public sizes only: the cut depends on the number of parameters, never on the records."""
    size = min(RECORDS_AT_ONCE, max(1, FLOATS_AT_ONCE // max(1, parameters)))
    for start in range(0, count, size):
        yield slice(start, start + size)


def _add_clipped(
    total: NDArray[np.float64], gradients: torch.Tensor, finite_loss: torch.Tensor, bound: float
) -> torch.Tensor:
    """Clip each row and add it to `total` in place, row after row; returns which rows counted."""
    rows = gradients.detach().to("cpu", torch.float64).numpy()
    norms = np.sqrt((rows * rows).sum(1))  # float64: squares of float32 cannot overflow
    good = np.isfinite(norms) & finite_loss.cpu().numpy()
    safe = np.where(good & (norms > 0.0), norms, 1.0)
    factors = np.where(good, np.where(norms > bound, bound / safe * SHRINK, 1.0), 0.0)
    # A factor of 0 would keep NaN and infinity, so rows that do not count are cleared first.
    total += (np.where(good[:, None], rows, 0.0) * factors[:, None]).sum(0)
    return torch.from_numpy(good)

"""What a clipping engine gives: the sum of per-record gradients, each of L2 norm at most the bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.config import finite
from common.errors import Code, Refusal
from common.privacy.clipping.adding import add_clipped
from common.privacy.clipping.contributions import Contribution
from common.privacy.clipping.memory import keep_memory

PerRecord = Callable[[Tensor, Tensor], Tensor]  # outputs [m, k], labels [m] -> losses [m]

FLOATS_AT_ONCE = 3 << 22  # per-record gradients held at one time: 48 MiB of float32
FLOATS_ON_CARD = 1 << 27  # the same on a graphics card
RECORDS_AT_ONCE = 64  # bounds the activations of a micro-batch where an engine is not told
RECORDS_ON_CARD = 1024


@dataclass(frozen=True, repr=False, eq=False)
class ClippedSum:
    """The clipped sum of one batch and what else of each record the site itself needs. Not private yet: never sent.

    total    float64 [d], the sum in the order of `parameters.flatten`
    losses   float32 [n], 0 where a record is not usable       outputs  float32 [n, k], 0 likewise
    usable   bool [n]: the record's loss and gradient are finite; others add nothing
    """

    total: NDArray[np.float64]
    losses: Tensor
    outputs: Tensor
    usable: Tensor

    @property
    def bad(self) -> int:
        """Records that added nothing because their loss or gradient is not finite. Stays at the site."""
        return int((~self.usable).sum())


class ClipEngine(Protocol):
    """One way to compute per-record gradients; all agree up to float32 rounding."""

    def clipped_sum(
        self, model: nn.Module, per_record_loss: PerRecord, inputs: Tensor, labels: Tensor, bound: float
    ) -> ClippedSum:
        """The sum over the records of gradient * min(1, bound / norm).

        per_record_loss  outputs, labels -> one loss a record, each from its own row only
        inputs, labels   the batch, [n, ...] and [n], on the model's device; n = 0 gives zeros
        Guarantee: adding or removing one record moves `total` by at most `bound` in L2 norm (the model must have
        passed `validate`), up to the rounding of passes over other records, which may depend on how many are computed
        together. On a processor the same batch in the same order gives the same bits; the model is left as it was.
        Errors: Refusal CONFIG_INVALID for a bound that is not positive, DATA_INVALID for unequal lengths,
        MODEL_INVALID for a model that this engine cannot clip.
        """


class Passed(NamedTuple):
    """One micro-batch after its forward and backward pass.

    outputs [m, k], losses [m], and for each trainable parameter what its records add; None where none reached it
    """

    outputs: Tensor
    losses: Tensor
    parts: Sequence[Contribution | None]


Passes = Callable[[Tensor, Tensor], Passed]  # inputs, labels of a micro-batch -> what its passes left


def summed(
    model: nn.Module, of: Passes, batch: tuple[Tensor, Tensor], bound: float, *, records: int | None = None
) -> ClippedSum:
    """`ClipEngine.clipped_sum` over micro-batches, for engines that give each record's gradient.

    records  most of them in a micro-batch; None leaves it to the device
    """
    inputs, labels = batch
    refuse_unfit(inputs, labels, bound)
    keep_memory()
    parameters = trainable(model)
    # Apple's graphics cards have no float64: there the sum is formed by the processor.
    device = torch.device("cpu") if inputs.device.type == "mps" else inputs.device
    total = torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=torch.float64, device=device)
    shares = torch.split(total, [parameter.numel() for parameter in parameters])
    gathered = Gathered()
    with training(model):
        for rows in micro_batches(len(inputs), total.numel(), inputs.device, records):
            passed = _on(of(inputs[rows], labels[rows]), device)
            gathered.take(passed.outputs, passed.losses, add_clipped(shares, passed.parts, passed.losses, bound))
    return gathered.sum(total)


def refuse_unfit(inputs: Tensor, labels: Tensor, bound: float) -> None:
    """Errors: Refusal CONFIG_INVALID, DATA_INVALID."""
    finite(bound, "clipping bound", above=0.0)
    if len(inputs) != len(labels):
        raise Refusal(Code.DATA_INVALID, "Batch not used", "inputs and labels differ in number", "Pass equal lengths")


class Gathered:
    """Outputs, losses and usability of the micro-batches so far."""

    def __init__(self) -> None:
        self._outputs: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._usable: list[Tensor] = []

    def take(self, outputs: Tensor, losses: Tensor, good: Tensor) -> None:
        """The next micro-batch; good, bool [m], says whose record counts."""
        self._outputs.append(torch.where(good[:, None], outputs.detach(), 0.0))
        self._losses.append(torch.where(good, losses.detach(), 0.0))
        self._usable.append(good)

    def sum(self, total: Tensor) -> ClippedSum:
        """All of them with their sum `total`, float64 [d]."""
        return ClippedSum(
            total=total.cpu().numpy(),
            losses=torch.cat(self._losses) if self._losses else torch.zeros(0),
            outputs=torch.cat(self._outputs) if self._outputs else torch.zeros(0, 0),
            usable=torch.cat(self._usable) if self._usable else torch.zeros(0, dtype=torch.bool),
        )


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that travel, in the order in which they are flattened."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def own(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters of a layer itself, by name; without torch's walk over modules, which costs more than a small layer."""
    held = layer._parameters  # noqa: SLF001  # what torch's walk reads, and modules of others fill
    return {name: parameter for name, parameter in held.items() if parameter is not None}


def trained(layer: nn.Module) -> bool:
    """Whether the layer itself has something to learn that no layer inside it has.

    Opacus' recurrent layers list the weights of their cells once more, under the names that torch gives them.
    """
    mine = [parameter for parameter in own(layer).values() if parameter.requires_grad]
    if not mine:
        return False  # most containers: their layers need not be walked
    inside = {id(parameter) for child in layer.children() for parameter in child.parameters()}
    return any(id(parameter) not in inside for parameter in mine)


@contextmanager
def training(model: nn.Module) -> Iterator[None]:
    """Training mode for the length of a block; every module then gets back the mode it had."""
    before = [(module, module.training) for module in model.modules()]
    if not all(mode for _, mode in before):
        model.train()
    try:
        yield
    finally:
        for module, mode in before:
            if module.training is not mode:
                module.training = mode


def micro_batches(count: int, parameters: int, device: torch.device, records: int | None = None) -> Iterator[slice]:
    """Parts of nearly equal size. Public sizes only: the cut depends on nothing that the records hold."""
    card = device.type != "cpu"
    floats, most = (FLOATS_ON_CARD, RECORDS_ON_CARD) if card else (FLOATS_AT_ONCE, RECORDS_AT_ONCE)
    size = min(records or most, max(1, floats // max(1, parameters)))
    parts = -(-count // size)
    for place in range(parts):
        yield slice(place * count // parts, (place + 1) * count // parts)


def _on(passed: Passed, device: torch.device) -> Passed:
    if passed.losses.device == device:
        return passed
    parts = [None if part is None else part.on(device) for part in passed.parts]
    return Passed(passed.outputs.to(device), passed.losses.to(device), parts)

"""Random records that a model is tried with before it sees one of a site."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from common.randomness import child


@dataclass(frozen=True)
class Probe:
    """What a model takes.

    shape    of one record's inputs        classes  of its label
    tokens   inputs are integers below it; 0: real numbers
    """

    shape: tuple[int, ...]
    classes: int = 2
    tokens: int = 0

    def inputs(self, count: int, purpose: str) -> Tensor:
        """`count` records, the same for the same purpose, [count, *shape]."""
        stream = child(0, purpose, self.shape)
        if self.tokens:
            return torch.randint(self.tokens, (count, *self.shape), generator=stream)
        return torch.randn(count, *self.shape, generator=stream)

    def labels(self, count: int, purpose: str) -> Tensor:
        """Their labels, int64 [count]."""
        return torch.randint(self.classes, (count,), generator=child(1, purpose, self.shape))

    def changed(self, inputs: Tensor) -> Tensor:
        """Other values for every number of `inputs`."""
        return (inputs + 1) % self.tokens if self.tokens else 3.0 - 2.0 * inputs


def without_dropout(model: nn.Module) -> nn.Module:
    """A copy that draws nothing: two computations of it can be compared."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001  # the common class of all dropouts
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # attention and recurrent layers
            module.dropout = 0.0  # type: ignore[assignment]  # torch types attributes of modules as modules
    return model

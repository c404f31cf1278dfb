"""A model's fixed front: what it does to a record before anything is learned, so that it need be done only once."""

from __future__ import annotations

import torch
from torch import nn

AT_ONCE = 512  # records


class Fronted(nn.Sequential):
    """`front`, which has nothing to learn and maps each record by itself, then `head`, which learns."""

    def __init__(self, front: nn.Module, head: nn.Module):
        super().__init__()
        self.front, self.head = front, head


def parted(model: nn.Module) -> tuple[nn.Module | None, nn.Module]:
    """The fixed front of `model`, if it has one, and what learns behind it.

    The head holds the model's own parameters, in the same order: training it trains the model.
    """
    if isinstance(model, Fronted):
        return model.front, model.head
    return None, model


@torch.no_grad()
def seen_through(front: nn.Module | None, inputs: torch.Tensor) -> torch.Tensor:
    """Inputs [n, ...] as `front` shows them to the head, in pieces that fit memory; themselves without a front."""
    if front is None or len(inputs) <= AT_ONCE:
        return inputs if front is None else torch.as_tensor(front(inputs))
    found = inputs
    for start in range(0, len(inputs), AT_ONCE):
        part = front(inputs[start : start + AT_ONCE])
        if not start:
            found = part.new_empty(len(inputs), *part.shape[1:])
        found[start : start + len(part)] = part
    return found

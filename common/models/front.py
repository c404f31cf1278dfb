"""A model's fixed front: what it does to a record before anything is learned, so that it need be done only once."""

from __future__ import annotations

import itertools

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
def seen_through(front: nn.Module | None, inputs: torch.Tensor, device: torch.device | None = None) -> torch.Tensor:
    """Inputs [n, ...] as `front` shows them to the head, in the memory that they came from; without a front themselves.

    device  where the front lies; only a piece of the inputs is there at a time
    """
    if front is None:
        return inputs
    pieces = (part.to(device or inputs.device) for part in torch.split(inputs, AT_ONCE))
    found = inputs.new_empty(0)
    for start, piece in zip(itertools.count(0, AT_ONCE), pieces, strict=False):
        part = front(piece).to(inputs.device)
        if not start:
            found = part.new_empty(len(inputs), *part.shape[1:])
        found[start : start + len(part)] = part
    return found

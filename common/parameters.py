"""The trainable parameters of a model as one flat array, and the names and shapes it stands for."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.config import digest
from common.errors import Code, Refusal

Flat = NDArray[np.float32]


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the trainable parameters, in the order in which they lie in the flat array."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        """Number of scalars, d."""
        return sum(math.prod(shape) for shape in self.shapes)

    def digest(self) -> bytes:
        """SHA-256 that two parties compare before they add anything."""
        return digest({"names": self.names, "shapes": self.shapes})


def layout_of(model: nn.Module) -> Layout:
    """The layout of `model`. Frozen parameters and buffers are no part of it: they never travel."""
    named = [(name, tuple(p.shape)) for name, p in model.named_parameters() if p.requires_grad]
    return Layout(tuple(name for name, _ in named), tuple(shape for _, shape in named))


def flatten(model: nn.Module) -> Flat:
    """The trainable parameters as float32 [d], copied."""
    parts = [p.detach().reshape(-1).to("cpu", torch.float32) for p in model.parameters() if p.requires_grad]
    return torch.cat(parts).numpy().copy() if parts else np.zeros(0, np.float32)


@torch.no_grad()
def assign(model: nn.Module, flat: Flat) -> None:
    """Write `flat` into the trainable parameters of `model`.

    Errors: Refusal UPDATE_INVALID for a wrong length or a value that is not finite; then nothing is written.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    size = sum(p.numel() for p in trainable)
    checked(flat, size)
    source = torch.from_numpy(np.ascontiguousarray(flat, np.float32).copy())
    start = 0
    for parameter in trainable:
        parameter.copy_(source[start : start + parameter.numel()].view_as(parameter))
        start += parameter.numel()


def checked(flat: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """`flat` itself, if it is a vector of `size` finite numbers. Errors: Refusal UPDATE_INVALID."""
    if flat.shape != (size,):
        raise Refusal(
            Code.UPDATE_INVALID,
            f"Array of shape {flat.shape} not used",
            f"this model has {size} parameters",
            "Use the model of the job",
        )
    if not np.isfinite(flat).all():
        raise Refusal(
            Code.UPDATE_INVALID,
            "Array not used",
            "it holds values that are not finite",
            "Lower the learning rate or look for missing values",
        )
    return flat


def named(layout: Layout, flat: Flat) -> dict[str, NDArray[np.float32]]:
    """`flat` cut into named arrays, as a model file stores them."""
    checked(flat, layout.size)
    ends = np.cumsum([math.prod(shape) for shape in layout.shapes])[:-1]
    parts = np.split(flat, ends)
    return {name: part.reshape(shape) for name, shape, part in zip(layout.names, layout.shapes, parts, strict=True)}


def model_digest(layout: Layout, flat: Flat) -> bytes:
    """SHA-256 that names one model: its layout and every bit of its parameters."""
    body = np.ascontiguousarray(flat, "<f4").tobytes()
    return hashlib.sha256(b"hushfed/model/v1\0" + layout.digest() + body).digest()

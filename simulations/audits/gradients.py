"""The gradient of every single record, as an attacker who knows the model and the record computes it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import functional_call, grad, vmap

from common.data import Records
from common.learning.losses import PerRecord
from common.privacy.clipping.engine import training

AT_ONCE = 1 << 24  # numbers of gradients held in float32 at one time


def gradients(model: nn.Module, losses: PerRecord, records: Records, bound: float = 0.0) -> NDArray[np.float32]:
    """Gradients of the records' losses, float32 [n, d], in the order of `parameters.flatten`.

    bound  their largest norm, to which longer ones are scaled down as by a clipping engine; 0 leaves them as they are
    A record whose gradient is not finite has none: zeros.
    """
    trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    size = sum(p.numel() for p in trained.values())

    def loss(parameters: dict[str, torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return losses(functional_call(model, parameters, (x[None],)), y[None])[0]

    step, parts = max(1, AT_ONCE // max(1, size)), []
    with training(model):
        for start in range(0, len(records), step):
            rows = slice(start, start + step)
            found = vmap(grad(loss), in_dims=(None, 0, 0))(trained, records.inputs[rows], records.labels[rows])
            parts.append(torch.cat([found[name].reshape(len(found[name]), -1) for name in trained], 1).numpy())
    whole = np.concatenate(parts) if parts else np.zeros((0, size), np.float32)
    return _bounded(whole, bound)


@torch.no_grad()
def losses_of(model: nn.Module, losses: PerRecord, records: Records) -> NDArray[np.float64]:
    """The loss of every record, float64 [n]."""
    model.eval()
    return losses(model(records.inputs), records.labels).double().numpy()


def _bounded(rows: NDArray[np.float32], bound: float) -> NDArray[np.float32]:
    norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
    good = np.isfinite(norms)
    factors = np.ones_like(norms) if not bound else np.minimum(1.0, bound / np.where(good & (norms > 0), norms, bound))
    cleared = np.where(good[:, None], rows, np.float32(0))
    return (cleared * np.where(good, factors, 0.0)[:, None]).astype(np.float32)

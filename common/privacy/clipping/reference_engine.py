"""Per-record gradients one record at a time by plain autograd: slow, right for every model, and the yardstick."""

from __future__ import annotations

import torch
from torch import nn

from common.privacy.clipping.engine import ClippedSum, PerRecord, summed, trainable


class ReferenceEngine:
    """`ClipEngine` that feeds the model batches of one. What other engines are checked against."""

    def clipped_sum(
        self, model: nn.Module, per_record_loss: PerRecord, inputs: torch.Tensor, labels: torch.Tensor, bound: float
    ) -> ClippedSum:
        """See `ClipEngine.clipped_sum`."""

        def one(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            with torch.enable_grad():
                outputs = model(x[None])
                losses = per_record_loss(outputs, y[None])
                found: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
                    losses.sum(), trainable(model), allow_unused=True
                )
            parts = [
                torch.zeros(parameter.numel()) if gradient is None else gradient.reshape(-1)
                for parameter, gradient in zip(trainable(model), found, strict=True)
            ]
            return outputs.detach()[0], losses.detach()[0], torch.cat(parts)

        def gradients(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            outputs, losses, rows = zip(*(one(a, b) for a, b in zip(x, y, strict=True)), strict=True)
            return torch.stack(outputs), torch.stack(losses), torch.stack(rows)

        return summed(model, gradients, inputs, labels, bound)

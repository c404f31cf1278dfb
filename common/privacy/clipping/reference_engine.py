"""Per-record gradients one record at a time by plain autograd: slow, right for every model, and the yardstick."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.privacy.clipping.contributions import Dense
from common.privacy.clipping.engine import ClippedSum, Passed, PerRecord, summed, trainable


class ReferenceEngine:
    """`ClipEngine` that feeds the model batches of one. What other engines are checked against."""

    def clipped_sum(
        self, model: nn.Module, per_record_loss: PerRecord, inputs: Tensor, labels: Tensor, bound: float
    ) -> ClippedSum:
        """See `ClipEngine.clipped_sum`."""
        parameters = trainable(model)

        def one(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
            with torch.enable_grad():
                outputs = model(x[None])
                losses = per_record_loss(outputs, y[None])
                found: tuple[Tensor | None, ...] = (None,) * len(parameters)
                if losses.requires_grad:
                    found = torch.autograd.grad(losses.sum(), parameters, allow_unused=True)
            parts = [
                torch.zeros_like(parameter).view(-1) if gradient is None else gradient.reshape(-1)
                for parameter, gradient in zip(parameters, found, strict=True)
            ]
            return outputs.detach()[0], losses.detach()[0], parts

        def all_of(x: Tensor, y: Tensor) -> Passed:
            outputs, losses, rows = zip(*(one(a, b) for a, b in zip(x, y, strict=True)), strict=True)
            parts = [Dense(torch.stack(part)) for part in zip(*rows, strict=True)]
            return Passed(torch.stack(outputs), torch.stack(losses), parts)

        return summed(model, all_of, (inputs, labels), bound)

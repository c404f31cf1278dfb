"""Opacus' ghost clipping: norms from a first backward pass, the weighted sum from a second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from opacus.grad_sample import GradSampleHooksFastGradientClipping
from torch import Tensor, nn

from common.privacy.clipping.adding import factors_of
from common.privacy.clipping.engine import (
    ClippedSum,
    Gathered,
    PerRecord,
    micro_batches,
    refuse_unfit,
    trainable,
    training,
)
from common.privacy.clipping.opacus_engine import hooked


@dataclass(frozen=True)
class GhostEngine:
    """`ClipEngine` over Opacus' fast gradient and ghost clipping, for comparison; no site can choose it.

    Its sum over a micro-batch is formed in float32, and its norms are not taken of the numbers that are added, so one
    record may move the sum by more than the bound, by rounding: other engines do not.
    records  most of them in a micro-batch; None leaves it to the device
    """

    records: int | None = None

    def clipped_sum(
        self, model: nn.Module, per_record_loss: PerRecord, inputs: Tensor, labels: Tensor, bound: float
    ) -> ClippedSum:
        """See `ClipEngine.clipped_sum`, but for the rounding."""
        refuse_unfit(inputs, labels, bound)
        parameters = trainable(model)
        total = torch.zeros(sum(parameter.numel() for parameter in parameters), dtype=torch.float64)
        gathered = Gathered()
        attach = partial(GradSampleHooksFastGradientClipping, max_grad_norm=bound, use_ghost_clipping=True)
        with training(model), hooked(model, attach) as hooks, torch.enable_grad():
            for rows in micro_batches(len(inputs), total.numel(), inputs.device, self.records):
                x, y = inputs[rows], labels[rows]
                hooks.enable_hooks()
                outputs = model(x)
                losses = per_record_loss(outputs, y)
                factors, good = _factors(hooks, losses, bound)
                if not bool(good.all()):  # 0 times NaN is NaN: the second pass runs without them
                    losses, factors = per_record_loss(model(x[good]), y[good]), factors[good]
                if len(losses):
                    found = torch.autograd.grad(losses @ factors.to(losses.dtype), parameters, allow_unused=True)
                    total += _flat(parameters, found)
                gathered.take(outputs, per_record_loss(outputs, y), good)
        return gathered.sum(total)


def _factors(hooks: Any, losses: Tensor, bound: float) -> tuple[Tensor, Tensor]:
    """The first backward pass; the hooks rest afterwards."""
    torch.autograd.backward(losses.sum(), retain_graph=True)
    norms = hooks.get_norm_sample().detach().double()
    hooks.disable_hooks()
    return factors_of(norms.square(), losses.detach(), bound)


def _flat(parameters: list[nn.Parameter], found: tuple[Tensor | None, ...]) -> Tensor:
    parts = [
        torch.zeros_like(parameter) if gradient is None else gradient
        for parameter, gradient in zip(parameters, found, strict=True)
    ]
    return torch.cat([part.reshape(-1).double().cpu() for part in parts])

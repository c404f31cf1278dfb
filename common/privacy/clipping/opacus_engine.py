"""Per-record gradients by Opacus' hooks: one forward and one backward pass for a whole micro-batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import nn

from common.errors import Code, Refusal
from common.privacy.clipping.engine import ClippedSum, PerRecord, summed, trainable


class OpacusEngine:
    """`ClipEngine` over Opacus 1.6 grad samplers; the model must have passed `validate`."""

    def clipped_sum(
        self, model: nn.Module, per_record_loss: PerRecord, inputs: torch.Tensor, labels: torch.Tensor, bound: float
    ) -> ClippedSum:
        """See `ClipEngine.clipped_sum`. Hooks live only for the length of the call."""

        def gradients(x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            with torch.enable_grad():
                outputs = model(x)
                losses = per_record_loss(outputs, y)
                torch.autograd.backward(losses.sum())
            return outputs.detach(), losses.detach(), _collected(model, len(x))

        with _hooked(model):
            return summed(model, gradients, inputs, labels, bound)


@contextmanager
def _hooked(model: nn.Module) -> Iterator[None]:
    """Attach Opacus for the length of a block and leave the model as it was: no hook, no gradient, no attribute."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        hooks = GradSampleHooks(model, batch_first=True, loss_reduction="sum", strict=True)
    except (NotImplementedError, ValueError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise Refusal(Code.MODEL_INVALID, "Model not clipped", why, "Use layers that `validate` accepts") from None
    try:
        with warnings.catch_warnings():
            # The first layer's inputs are data, which need no gradient; Opacus uses the output's.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            yield
    finally:
        hooks.cleanup()
        for module in model.modules():
            module.__dict__.pop("activations", None)
            module.__dict__.pop("max_batch_len", None)
        for parameter, gradient in before:
            parameter.grad = gradient
            parameter.__dict__.pop("_current_grad_sample", None)


def _collected(model: nn.Module, count: int) -> torch.Tensor:
    """The per-record gradients that the hooks left, float32 [count, d], removed from the parameters."""
    parts = []
    for parameter in trainable(model):
        sample = getattr(parameter, "grad_sample", None)
        # A parameter that no record reached has no sample: its gradient is zero.
        parts.append(torch.zeros(count, parameter.numel()) if sample is None else sample.reshape(count, -1))
        parameter.grad_sample = None  # type: ignore[attr-defined]  # Opacus keeps its result on the parameter
        parameter.grad = None
    return torch.cat(parts, 1) if parts else torch.zeros(count, 0)

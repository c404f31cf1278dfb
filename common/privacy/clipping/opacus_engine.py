"""Per-record gradients by Opacus' hooks: one forward and one backward pass for a whole micro-batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import Tensor, nn

from common.errors import Code, Refusal
from common.privacy.clipping.contributions import Dense
from common.privacy.clipping.engine import ClippedSum, Passed, PerRecord, summed, trainable
from common.privacy.clipping.samplers import FasterHooks

Way = Literal["hooks", "functorch", "faster"]
Hooks = Callable[..., Any]  # model, keywords -> the hooks, attached

_WAYS: dict[Way, Hooks] = {
    "hooks": GradSampleHooks,
    "functorch": partial(GradSampleHooks, force_functorch=True),
    "faster": FasterHooks,
}


@dataclass(frozen=True)
class OpacusEngine:
    """`ClipEngine` over Opacus 1.6; the model must have passed `validate`.

    way      "hooks" and "functorch" as installed; "faster": hooks with grad samplers of ours
    records  most of them in a micro-batch; None leaves it to the device
    """

    way: Way = "hooks"
    records: int | None = None

    def clipped_sum(
        self, model: nn.Module, per_record_loss: PerRecord, inputs: Tensor, labels: Tensor, bound: float
    ) -> ClippedSum:
        """See `ClipEngine.clipped_sum`. Hooks live only for the length of the call."""

        def all_of(x: Tensor, y: Tensor) -> Passed:
            with torch.enable_grad():
                outputs = model(x)
                losses = per_record_loss(outputs, y)
                if losses.requires_grad:
                    torch.autograd.backward(losses.sum())
            return Passed(outputs.detach(), losses.detach(), [_collected(p) for p in trainable(model)])

        with hooked(model, _WAYS[self.way]):
            return summed(model, all_of, (inputs, labels), bound, records=self.records)


@contextmanager
def hooked(model: nn.Module, attach: Hooks) -> Iterator[Any]:
    """Attach Opacus for the length of a block and leave the model as it was: no hook, no gradient, no attribute."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        hooks = attach(model, batch_first=True, loss_reduction="sum", strict=True)
    except (NotImplementedError, ValueError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        raise Refusal(Code.MODEL_INVALID, "Model not clipped", why, "Use layers that `validate` accepts") from None
    try:
        with warnings.catch_warnings():
            # The first layer's inputs are data, which need no gradient; Opacus uses the output's.
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            yield hooks
    finally:
        hooks.cleanup()
        for module in model.modules():
            module.__dict__.pop("activations", None)
            module.__dict__.pop("max_batch_len", None)
        for parameter, gradient in before:
            parameter.grad = gradient
            for name in ("_current_grad_sample", "_norm_sample"):
                parameter.__dict__.pop(name, None)


def _collected(parameter: nn.Parameter) -> Dense | None:
    """The gradients that the hooks left on a parameter, removed from it; None if no record reached it."""
    sample = getattr(parameter, "grad_sample", None)
    parameter.grad_sample = None  # type: ignore[attr-defined]  # Opacus keeps its result on the parameter
    parameter.grad = None
    return None if sample is None else Dense(sample.flatten(1))

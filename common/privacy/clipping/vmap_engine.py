"""Per-record gradients by torch.func: the model as a function of its parameters, mapped over records."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from common.errors import Code, Refusal
from common.privacy.clipping.contributions import Dense
from common.privacy.clipping.engine import ClippedSum, Passed, PerRecord, own, summed, trainable


@dataclass(frozen=True)
class VmapEngine:
    """`ClipEngine` for every model that is a pure function of parameters and one record, tied weights included.

    records  most of them in a micro-batch; None leaves it to the device
    """

    records: int | None = None

    def clipped_sum(
        self, model: nn.Module, per_record_loss: PerRecord, inputs: Tensor, labels: Tensor, bound: float
    ) -> ClippedSum:
        """See `ClipEngine.clipped_sum`. Each record draws its own dropout."""
        parameters = trainable(model)
        places = _places(model)
        fixed = {name: p.detach() for name, p in places.items() if not p.requires_grad} | dict(model.named_buffers())
        learned = {name: number for number, p in enumerate(parameters) for name in places if places[name] is p}

        def loss_of(values: list[Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            state = fixed | {name: values[number] for name, number in learned.items()}
            outputs = functional_call(model, state, (x[None],), tie_weights=False)
            losses = per_record_loss(outputs, y[None])
            return losses.sum(), (outputs[0], losses[0])

        mapped = vmap(grad(loss_of, has_aux=True), in_dims=(None, 0, 0), randomness="different")
        values = [parameter.detach() for parameter in parameters]

        def all_of(x: Tensor, y: Tensor) -> Passed:
            try:
                rows, (outputs, losses) = mapped(values, x, y)
            except (RuntimeError, NotImplementedError) as error:
                raise _refused(str(error)) from None
            return Passed(outputs, losses, [Dense(part.flatten(1)) for part in rows])

        with torch.enable_grad():
            return summed(model, all_of, (inputs, labels), bound, records=self.records)


def _places(model: nn.Module) -> dict[str, nn.Parameter]:
    """Every place of a parameter by name; a module that stands in several places is named once.

    torch's own handling of ties would leave a module that is used twice with the parameters of the call.
    """
    seen: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        for name, parameter in own(module).items():
            seen[f"{path}.{name}" if path else name] = parameter
    return seen


def _refused(error: str) -> Refusal:
    why = error.strip().splitlines()[0].rstrip(".") if error.strip() else "torch.func cannot map it"
    return Refusal(Code.MODEL_INVALID, "Model not clipped", why, "Use layers that `validate` accepts")

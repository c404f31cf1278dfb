"""Per-record gradients in one forward and one backward pass, each parameter's in the cheapest form that is exact."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from opacus.layers.dp_rnn import RNNLinear
from torch import Tensor, nn
from torch.autograd import Function

from common.errors import Code, Refusal
from common.privacy.clipping.book import Book
from common.privacy.clipping.engine import ClippedSum, Passed, PerRecord, own, summed, trainable, trained
from common.privacy.clipping.layer_rules import (
    ConvolutionRule,
    EmbeddingRule,
    GroupNormRule,
    LayerNormRule,
    LinearRule,
    Place,
    RmsNormRule,
)

RULES: dict[type[nn.Module], type[Function]] = {
    nn.Linear: LinearRule,
    RNNLinear: LinearRule,
    nn.Conv1d: ConvolutionRule,
    nn.Conv2d: ConvolutionRule,
    nn.Conv3d: ConvolutionRule,
    nn.GroupNorm: GroupNormRule,
    nn.InstanceNorm1d: GroupNormRule,
    nn.InstanceNorm2d: GroupNormRule,
    nn.InstanceNorm3d: GroupNormRule,
    nn.LayerNorm: LayerNormRule,
    nn.RMSNorm: RmsNormRule,
    nn.Embedding: EmbeddingRule,
}


@dataclass(frozen=True)
class BookKeepingEngine:
    """`ClipEngine` that replaces the weight gradient of each layer by one for each record, of the same arithmetic.

    Source: Bu, Wang, Zha and Karypis 2023 (book-keeping: no second backward pass). Unlike there, norms are never
    computed from products of activations ("ghost norms"): in float32 those may fall short of the gradient that is
    then added.

    records  most of them in a micro-batch; None leaves it to the device
    """

    records: int | None = None

    def clipped_sum(
        self, model: nn.Module, per_record_loss: PerRecord, inputs: Tensor, labels: Tensor, bound: float
    ) -> ClippedSum:
        """See `ClipEngine.clipped_sum`. Layers are replaced only for the length of the call."""
        book, parameters = Book(), trainable(model)

        def all_of(x: Tensor, y: Tensor) -> Passed:
            book.open(len(x))
            with torch.enable_grad():
                outputs = model(x)
                losses = per_record_loss(outputs, y)
                if losses.requires_grad:
                    torch.autograd.backward(losses.sum())
            return Passed(outputs.detach(), losses.detach(), [book.of(parameter) for parameter in parameters])

        with _kept(model, book):
            return summed(model, all_of, (inputs, labels), bound, records=self.records)


@contextmanager
def _kept(model: nn.Module, book: Book) -> Iterator[None]:
    """Let every layer with trainable parameters write into `book`. Errors: Refusal MODEL_INVALID naming the layer."""
    layers = [(path, layer) for path, layer in model.named_modules() if trained(layer)]
    for path, layer in layers:
        if not _known(layer):
            raise Refusal(
                Code.MODEL_INVALID,
                f"Layer {path or 'model'} ({type(layer).__name__})",
                "book-keeping has no rule for it",
                'Use the engine "auto" or "vmap"',
            )
    try:
        for _, layer in layers:
            layer.forward = _ruled(layer, book)
        yield
    finally:
        for _, layer in layers:
            layer.__dict__.pop("forward", None)


def _known(layer: nn.Module) -> bool:
    """Whether the layer computes what its rule computes: of exactly this type, with exactly its parameters."""
    names = own(layer).keys()
    plain = names <= {"weight", "bias"} and "weight" in names and "forward" not in layer.__dict__
    if isinstance(layer, nn.Embedding):
        plain = plain and layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
    return plain and type(layer) in RULES and not getattr(layer, "track_running_stats", False)


def _ruled(layer: nn.Module, book: Book) -> nn.Module:
    """The layer's forward pass with its rule in place of torch's."""
    rule, at = RULES[type(layer)], Place(layer, book)

    def forward(x: Tensor) -> Tensor:
        found: Tensor = rule.apply(x, layer.weight, getattr(layer, "bias", None), at)  # type: ignore[no-untyped-call]  # torch
        return found

    return forward  # type: ignore[return-value]  # torch types every attribute of a module as one

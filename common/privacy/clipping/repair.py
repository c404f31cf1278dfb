"""Layers that cannot be clipped, put in another form that computes the same; batch norms only on request."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from opacus.layers import DPGRU, DPLSTM, DPRNN
from torch import Tensor, nn

from common.errors import Code, Refusal
from common.privacy.clipping.attention import Attention
from common.privacy.clipping.engine import training
from common.privacy.clipping.probes import Probe, without_dropout

EQUAL = 1e-5  # largest difference of the outputs, relative to the largest output


@dataclass(frozen=True, eq=False)
class Repaired:
    """A model that `validate` may now accept.

    model    a new one; that given is left as it was
    changes  one sentence for each layer that was replaced, with its path
    """

    model: nn.Module
    changes: tuple[str, ...]


def repair(model: nn.Module, shape: tuple[int, ...], *, tokens: int = 0, norms: bool = False) -> Repaired:
    """A copy of `model` in which layers that cannot be clipped are replaced by ones that compute the same.

    Multi-head attention becomes linear layers, recurrent layers those of Opacus, both with the same weights;
    activations no longer overwrite; instance norm keeps no running statistics (it did not use them in training).
    shape, tokens  as in `validate`
    norms          also put GroupNorm in the place of every BatchNorm. That is ANOTHER FUNCTION, to be trained anew:
                   its scale and shift are copied, its statistics have no counterpart
    Guarantee: but for `norms`, outputs in training mode (without dropout) are equal to 1e-5; this is checked.
    Errors: Refusal MODEL_INVALID for a layer that has no equal form, or if outputs differ.
    """
    mended = copy.deepcopy(model)
    changes = [_replaced(mended, path, layer, _KEEPING) for path, layer in _found(mended, _KEEPING)]
    for path, layer in mended.named_modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False
            changes.append(f"{_named(path, layer)} no longer overwrites its input")
    _refuse_different(model, mended, Probe(shape, tokens=tokens))
    if norms:
        changes += [_replaced(mended, path, layer, _CHANGING) for path, layer in _found(mended, _CHANGING)]
    return Repaired(mended, tuple(changes))


Form = Callable[[Any], nn.Module]  # of the layer under whose type it stands in its table


def _attention(layer: nn.MultiheadAttention) -> nn.Module:
    if layer.bias_k is not None or layer.add_zero_attn:
        raise _refused("MultiheadAttention", "add_bias_kv and add_zero_attn have no equal form", "Leave them out")
    made = Attention(
        layer.embed_dim,
        layer.num_heads,
        keys=layer.kdim,
        values=layer.vdim,
        bias=layer.out_proj.bias is not None,
        dropout=layer.dropout,
        batch_first=layer.batch_first,
    )
    weights, biases, learned = _projections(layer)
    for place, weight, bias in zip((made.query, made.key, made.value), weights, biases, strict=True):
        _copy(place, weight, bias, learned)
    _copy(made.out, layer.out_proj.weight, layer.out_proj.bias, layer.out_proj.weight.requires_grad)
    return made


def _projections(layer: nn.MultiheadAttention) -> tuple[Sequence[Tensor], Sequence[Tensor | None], bool]:
    """Weights and biases for queries, keys and values, and whether they are learned."""
    held = dict(layer.named_parameters(recurse=False))
    if "in_proj_weight" in held:
        weights: Sequence[Tensor] = torch.chunk(held["in_proj_weight"], 3)
    else:
        weights = [held[f"{name}_proj_weight"] for name in "qkv"]
    bias = held.get("in_proj_bias")
    biases = (None, None, None) if bias is None else torch.chunk(bias, 3)
    return weights, biases, any(parameter.requires_grad for parameter in held.values())


def _recurrent(layer: nn.RNNBase) -> nn.Module:
    if layer.proj_size:
        raise _refused(type(layer).__name__, "proj_size has no equal form", "Use a linear layer behind it")
    kinds: dict[str, Callable[..., nn.Module]] = {"LSTM": DPLSTM, "GRU": DPGRU, "RNN_TANH": DPRNN, "RNN_RELU": DPRNN}
    more = {"nonlinearity": layer.mode[4:].lower()} if layer.mode.startswith("RNN") else {}
    made = kinds[layer.mode](
        layer.input_size,
        layer.hidden_size,
        num_layers=layer.num_layers,
        bias=layer.bias,
        batch_first=layer.batch_first,
        dropout=layer.dropout,
        bidirectional=layer.bidirectional,
        **more,
    )
    made.load_state_dict(layer.state_dict())
    learned = {name: parameter.requires_grad for name, parameter in layer.named_parameters()}
    for name, parameter in nn.Module.named_parameters(made, recurse=False):
        parameter.requires_grad_(learned[name])
    return made


def _instance_norm(layer: nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d) -> nn.Module:
    made = copy.copy(layer)
    made._parameters, made._buffers = dict(layer._parameters), {}  # noqa: SLF001  # torch has no other way
    made.track_running_stats = False
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        made.register_buffer(name, None)
    return made


def _group_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm) -> nn.Module:
    made = nn.GroupNorm(math.gcd(8, layer.num_features), layer.num_features, layer.eps, affine=layer.affine)
    if layer.affine:
        _copy(made, layer.weight, layer.bias, layer.weight.requires_grad)
    return made


_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_Forms = dict[type[nn.Module], Form]
_KEEPING: _Forms = {
    nn.MultiheadAttention: _attention,
    nn.LSTM: _recurrent,
    nn.GRU: _recurrent,
    nn.RNN: _recurrent,
    **dict.fromkeys(_INSTANCE_NORMS, _instance_norm),
}
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CHANGING: _Forms = dict.fromkeys(_BATCH_NORMS, _group_norm)


def _found(model: nn.Module, forms: _Forms) -> list[tuple[str, nn.Module]]:
    """Layers to replace; an instance norm only where it keeps statistics."""
    named = [(path, layer) for path, layer in model.named_modules() if type(layer) in forms]
    return [
        (path, layer) for path, layer in named if not isinstance(layer, _INSTANCE_NORMS) or layer.track_running_stats
    ]


def _replaced(model: nn.Module, path: str, layer: nn.Module, forms: _Forms) -> str:
    """Put the other form of `layer` wherever that stands in `model`."""
    if not path:
        raise _refused(_named(path, layer), "it is the whole model", "Put it inside a module")
    made = forms[type(layer)](layer)
    made.train(layer.training)
    reference = next(layer.parameters(), None)
    made = made if reference is None else made.to(reference)
    for parent, name in list(_places(model, layer)):
        setattr(parent, name, made)
    for stack in model.modules():
        if isinstance(stack, nn.TransformerEncoder):  # its shortcut reads the weights of torch's own attention
            stack.use_nested_tensor = stack.enable_nested_tensor = False
    note = ", which is another function" if forms is _CHANGING else " with the same weights"
    return f"{_named(path, layer)} became {type(made).__name__}{note}"


def _places(model: nn.Module, layer: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    for parent in model.modules():
        for name, child in parent._modules.items():  # noqa: SLF001  # named_children leaves out a second place
            if child is layer:
                yield parent, name


@torch.no_grad()
def _copy(place: nn.Module, weight: Tensor, bias: Tensor | None, learned: bool) -> None:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None:
            parameter = getattr(place, name)
            parameter.copy_(value)
            parameter.requires_grad_(learned)


@torch.no_grad()
def _refuse_different(before: nn.Module, after: nn.Module, probe: Probe) -> None:
    inputs = probe.inputs(4, "repair")
    outputs = []
    for model in (before, after):
        quiet = without_dropout(model)
        with training(quiet):
            outputs.append(quiet(inputs.to(next((p.device for p in quiet.parameters()), inputs.device))))
    largest = max(float(outputs[0].abs().max()), 1e-12)
    difference = float((outputs[0] - outputs[1]).abs().max()) / largest
    if not difference <= EQUAL:
        raise _refused("Model not repaired", f"its outputs would differ by {difference:.1e}", "Replace layers by hand")


def _named(path: str, layer: nn.Module) -> str:
    return f"Layer {path or 'model'} ({type(layer).__name__})"


def _refused(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.MODEL_INVALID, what, why, do)

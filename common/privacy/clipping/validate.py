"""Which models may be trained with per-record clipping: nothing in them may carry one record to another."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import Tensor, nn

from common.errors import Code, Refusal
from common.privacy.clipping.agreement import PROBES, check_engine
from common.privacy.clipping.bookkeeping_engine import RULES
from common.privacy.clipping.engine import trained, training
from common.privacy.clipping.probes import Probe
from common.privacy.clipping.vmap_engine import VmapEngine

INSTEAD: dict[type[nn.Module], str] = {
    nn.LSTM: "opacus.layers.DPLSTM",
    nn.GRU: "opacus.layers.DPGRU",
    nn.RNN: "opacus.layers.DPRNN",
    nn.MultiheadAttention: "common.privacy.clipping.attention.Attention",
}

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  # the common class of BatchNorm1d to 3d and SyncBatchNorm


def validate(model: nn.Module, shape: tuple[int, ...], *, tokens: int = 0) -> None:
    """Refuse a model whose output for one record depends on another, or whose layers cannot be clipped.

    All modules are walked, frozen and parameterless ones too: a BatchNorm without parameters mixes records as well.
    Then one of a few random records is changed: every other output must stay equal bit for bit, and the forward
    pass must leave buffers as they were. A layer that no engine has a rule for must pass through torch.func.

    shape   of one record's inputs      tokens  inputs are integers below it; 0: real numbers
    Errors: Refusal MODEL_INVALID with the layer's path, the reason and what to use instead (`repair` does some).
    """
    for path, module in model.named_modules():
        for why, do in _faults(module):
            raise _refused(_named(path, module), why, do)
    probe = Probe(shape, tokens=tokens)
    _refuse_leaks(copy.deepcopy(model), probe)
    _refuse_unclipped(model, probe)


def _faults(module: nn.Module) -> Iterator[tuple[str, str]]:
    """What is wrong with one module by itself, as why and what to do."""
    if isinstance(module, _BATCH_NORMS):
        yield (
            "it normalises each record by the other records of the batch",
            "Use GroupNorm or LayerNorm; repair(model, norms=True) puts GroupNorm there, which is another function",
        )
    if getattr(module, "track_running_stats", False) or "running_mean" in dict(module.named_buffers(recurse=False)):
        yield "it keeps running statistics of the records, which would leave the site", "Turn track_running_stats off"
    if getattr(module, "inplace", False):
        yield "it overwrites the activation that per-record gradients need", "Set inplace=False"
    if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        yield from _table_faults(module)
    kept = [name for name, _ in module.named_buffers(recurse=False) if name in module.state_dict()]
    if kept:
        yield f"its buffer {kept[0]!r} would travel with the model, without noise", "Register it with persistent=False"
    if type(module) in INSTEAD and any(parameter.requires_grad for parameter in module.parameters()):
        do = f"Use {INSTEAD[type(module)]}; repair(model) puts it there with the same weights"
        yield "no per-record gradient is known for it", do


def _table_faults(module: nn.Embedding | nn.EmbeddingBag) -> Iterator[tuple[str, str]]:
    if module.scale_grad_by_freq:
        yield "it scales a record's gradient by how often others use the same row", "Set scale_grad_by_freq=False"
    if module.max_norm is not None:
        yield "it changes the rows of its table that records look up, without noise", "Set max_norm=None"
    if module.sparse:
        yield "its gradient is sparse", "Set sparse=False"


def _refuse_leaks(model: nn.Module, probe: Probe) -> None:
    """The perturbation test, on a copy."""
    inputs = probe.inputs(PROBES, "leak test")
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    reference = _outputs(model, inputs)
    for name, buffer in model.named_buffers():
        if not torch.equal(buffer, before[name]):
            raise _refused(f"Buffer {name}", "the forward pass changes it by the records it sees", "Keep it constant")
    _outputs(model, inputs[:1])  # Poisson sampling draws batches of one record
    if len(reference) != PROBES:
        raise _refused("Model", "its outputs have no row for each record", "Keep the first dimension for records")
    for changed in range(PROBES):
        others = [row for row in range(PROBES) if row != changed]
        other = inputs.clone()
        other[changed] = probe.changed(other[changed])
        if not torch.equal(_outputs(model, other)[others], reference[others]):
            raise _refused("Model", "changing one record changes the output of another", "Remove what mixes records")


def _refuse_unclipped(model: nn.Module, probe: Probe) -> None:
    """A layer without a rule is accepted if torch.func gives its gradients right."""
    unknown = [(path, module) for path, module in model.named_modules() if _unknown(module)]
    if not unknown:
        return
    try:
        check_engine(VmapEngine(), model, _squares, probe)
    except Refusal:
        do = "Build it from Linear, Conv, Embedding, GroupNorm, LayerNorm or RMSNorm"
        raise _refused(_named(*unknown[0]), "no per-record gradient is known for it", do) from None


def _unknown(module: nn.Module) -> bool:
    return trained(module) and type(module) not in RULES and type(module) not in GradSampleHooks.GRAD_SAMPLERS


def _squares(outputs: Tensor, _: Tensor) -> Tensor:
    """A loss for any outputs."""
    return outputs.flatten(1).square().sum(1)


@torch.no_grad()
def _outputs(model: nn.Module, inputs: Tensor) -> Tensor:
    """Outputs in training mode, with the same dropout each time."""
    before = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(0)
        with training(model):
            outputs: Tensor = model(inputs)
            return outputs
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        why = f"it cannot take inputs of shape {[*inputs.shape]}: {str(error).splitlines()[0]}"
        raise _refused("Model", why, "Choose a model that fits the data") from None
    finally:
        torch.default_generator.set_state(before)


def _named(path: str, module: nn.Module) -> str:
    return f"Layer {path or 'model'} ({type(module).__name__})"


def _refused(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.MODEL_INVALID, what, why, do)

"""Which models may be trained with per-record clipping: nothing in them may carry one record to another."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from torch import nn

from common.errors import Code, Refusal
from common.privacy.clipping.engine import ClipEngine, PerRecord, training
from common.privacy.clipping.reference_engine import ReferenceEngine
from common.randomness import child

INSTEAD: dict[type[nn.Module], str] = {
    nn.LSTM: "Use opacus.layers.DPLSTM",
    nn.GRU: "Use opacus.layers.DPGRU",
    nn.RNN: "Use opacus.layers.DPRNN",
    nn.MultiheadAttention: "Use opacus.layers.DPMultiheadAttention",
}
PROBES = 4  # records of the perturbation test
AGREES = 1e-4  # largest relative difference of two engines

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  # the common class of BatchNorm1d to 3d and SyncBatchNorm


def validate(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Refuse a model whose output for one record depends on another, or whose layers cannot be clipped.

    All modules are walked, frozen and parameterless ones too: a BatchNorm without parameters mixes records as well.
    Then one of a few random records is changed: every other output must stay equal bit for bit, and the forward
    pass must leave buffers as they were.

    shape  of one record's inputs
    Errors: Refusal MODEL_INVALID with the layer's path, the reason and what to use instead.
    """
    for path, module in model.named_modules():
        for why, do in _faults(module):
            raise _refused(f"Layer {path or 'model'} ({type(module).__name__})", why, do)
    _refuse_leaks(copy.deepcopy(model), shape)


def check_engine(engine: ClipEngine, model: nn.Module, loss: PerRecord, shape: tuple[int, ...], classes: int) -> float:
    """The largest relative difference of `engine` from one-record-at-a-time on a few random records.

    Errors: Refusal MODEL_INVALID above 1e-4: an engine that is wrong for this model must not train it.
    """
    stream = child(0, "engine check", shape)
    inputs = torch.randn(PROBES, *shape, generator=stream)
    labels = torch.randint(classes, (PROBES,), generator=stream)
    found, right = (each.clipped_sum(model, loss, inputs, labels, 1.0).total for each in (engine, ReferenceEngine()))
    difference = float(abs(found - right).max(initial=0.0) / max(abs(right).max(initial=0.0), 1e-12))
    if not difference <= AGREES:
        raise _refused(
            "Model not clipped",
            f"this engine differs from one record at a time by {difference:.1e} of the largest gradient",
            "Use another engine for this model",
        )
    return difference


def _faults(module: nn.Module) -> Iterator[tuple[str, str]]:
    """What is wrong with one module by itself, as why and what to do."""
    if isinstance(module, _BATCH_NORMS):
        yield "it normalises each record by the other records of the batch", "Use GroupNorm or LayerNorm"
    if getattr(module, "track_running_stats", False) or "running_mean" in dict(module.named_buffers(recurse=False)):
        yield "it keeps running statistics of the records, which would leave the site", "Turn track_running_stats off"
    if getattr(module, "inplace", False):
        yield "it overwrites the activation that per-record gradients need", "Set inplace=False"
    owned = [name for name, _ in module.named_buffers(recurse=False)]
    kept = [name for name in owned if name in module.state_dict()]
    if kept:
        yield f"its buffer {kept[0]!r} would travel with the model, without noise", "Register it with persistent=False"
    trained = any(parameter.requires_grad for parameter in module.parameters(recurse=False))
    if trained and owned:
        yield "it owns both parameters and a buffer, which Opacus refuses", "Move the buffer to a module of its own"
    if trained and type(module) not in GradSampleHooks.GRAD_SAMPLERS:
        do = INSTEAD.get(type(module), "Build it from Linear, Conv, Embedding, GroupNorm, LayerNorm or RMSNorm")
        yield "no per-record gradient is known for it", do


def _refuse_leaks(model: nn.Module, shape: tuple[int, ...]) -> None:
    """The perturbation test, on a copy."""
    inputs = torch.randn(PROBES, *shape, generator=child(0, "leak test", shape))
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
        probe = inputs.clone()
        probe[changed] = 3.0 - 2.0 * probe[changed]
        if not torch.equal(_outputs(model, probe)[others], reference[others]):
            raise _refused("Model", "changing one record changes the output of another", "Remove what mixes records")


@torch.no_grad()
def _outputs(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Outputs in training mode, with the same dropout each time."""
    before = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(0)
        with training(model):
            outputs: torch.Tensor = model(inputs)
            return outputs
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        why = f"it cannot take inputs of shape {[*inputs.shape]}: {str(error).splitlines()[0]}"
        raise _refused("Model", why, "Choose a model that fits the data") from None
    finally:
        torch.default_generator.set_state(before)


def _refused(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.MODEL_INVALID, what, why, do)

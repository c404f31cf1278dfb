"""Whether an engine is right for a model: it must give what one record at a time gives."""

from __future__ import annotations

import torch
from torch import nn

from common.errors import Code, Refusal
from common.privacy.clipping.engine import ClipEngine, PerRecord
from common.privacy.clipping.probes import Probe, without_dropout
from common.privacy.clipping.reference_engine import ReferenceEngine

PROBES = 4  # records of the tests
AGREES = 1e-4  # largest relative difference of two engines
AT_AN_EDGE = 1e-2  # the same in float32, where float64 agrees


def check_engine(engine: ClipEngine, model: nn.Module, losses: PerRecord, probe: Probe) -> float:
    """The largest relative difference of `engine` from one record at a time, on a few random records.

    A rectifier may fall to either side of zero when float32 is added up in another order, which moves a gradient far
    more than rounding. So where float32 differs by more than 1e-4, float64 decides, and float32 must agree to 1e-2.
    Dropout is left out.
    Errors: Refusal MODEL_INVALID otherwise: an engine that is wrong for this model must not train it.
    """
    model = without_dropout(model)
    found = difference = _difference(engine, model, losses, probe)
    if AGREES < difference <= AT_AN_EDGE:
        difference = _difference(engine, model.cpu().double(), losses, probe)
    if not difference <= AGREES:
        raise Refusal(
            Code.MODEL_INVALID,
            "Model not clipped",
            f"this engine differs from one record at a time by {found:.1e} of the largest gradient",
            "Use another engine for this model",
        )
    return difference


def _difference(engine: ClipEngine, model: nn.Module, losses: PerRecord, probe: Probe) -> float:
    first = next((p for p in model.parameters()), torch.zeros(()))
    inputs = probe.inputs(PROBES, "engine check").to(first.device)
    inputs = inputs.to(first.dtype) if inputs.is_floating_point() else inputs
    labels = probe.labels(PROBES, "engine check").to(first.device)
    mine, right = (each.clipped_sum(model, losses, inputs, labels, 1.0) for each in (engine, ReferenceEngine()))
    if not torch.equal(mine.usable, right.usable):
        return float("inf")
    return float(abs(mine.total - right.total).max(initial=0.0) / max(abs(right.total).max(initial=0.0), 1e-12))

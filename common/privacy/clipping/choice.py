"""The engines by name, and how a site picks one: it must be right for the model, then the fastest is taken."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import torch
from torch import nn

from common.errors import Code, Refusal
from common.privacy.clipping.agreement import check_engine
from common.privacy.clipping.bookkeeping_engine import BookKeepingEngine
from common.privacy.clipping.engine import ClipEngine, PerRecord
from common.privacy.clipping.names import EngineName
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.clipping.probes import Probe
from common.privacy.clipping.reference_engine import ReferenceEngine
from common.privacy.clipping.vmap_engine import VmapEngine

ENGINES: Mapping[str, Callable[[int | None], ClipEngine]] = {
    "bk": BookKeepingEngine,
    "opacus": lambda records: OpacusEngine("faster", records),
    "vmap": VmapEngine,
    "opacus-hooks": lambda records: OpacusEngine("hooks", records),
    "opacus-functorch": lambda records: OpacusEngine("functorch", records),
    "reference": lambda _: ReferenceEngine(),
}
AUTO = ("bk", "opacus", "vmap")  # in this order where nothing is measured

_REPEATS = 7
_MOST_RECORDS = 256  # of a measured step
_HOPELESS = 3.0  # times the best first try: not tried again
_SIZES = {"cpu": (24, 64, 128, 512)}  # records of a micro-batch that are tried; elsewhere the device's own
_MANY, _MOST_INPUTS = 128, 1 << 20  # more records than that are tried only while their inputs are at most 4 MiB
_CHOSEN: dict[tuple[object, ...], ClipEngine] = {}


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an engine is chosen for.

    key      names model and loss, so that one choice serves all rounds and all sites of a process
    records  nominal number of a step
    """

    key: bytes
    losses: PerRecord
    probe: Probe
    records: int


def choose(name: EngineName, model: nn.Module, work: Work, *, measured: bool) -> ClipEngine:
    """The engine called `name` for `model`, on the device where that lies, or with "auto" the fastest that is right.

    measured  False takes the first that is right in a fixed order, so that a run can be repeated bit for bit
    Every engine gives the same clipped sums up to rounding, so the choice changes nothing about privacy.
    Errors: Refusal MODEL_INVALID if it differs from one record at a time by more than 1e-4, or cannot clip the model.
    """
    if name != "auto":
        engine = ENGINES[name](None)
        check_engine(engine, model, work.losses, work.probe)
        return engine
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    key = (work.key, device, torch.get_num_threads(), _records_of(work), measured)
    if key not in _CHOSEN:
        right = _right(model, work)
        _CHOSEN[key] = fastest(right, model, work, device) if measured else ENGINES[right[0]](None)
    return _CHOSEN[key]


def _right(model: nn.Module, work: Work) -> list[str]:
    """Names of the engines that agree with one record at a time."""
    right, reasons = [], []
    for name in AUTO:
        try:
            check_engine(ENGINES[name](None), model, work.losses, work.probe)
            right.append(name)
        except Refusal as refusal:
            reasons.append(f"{name}: {refusal.why}")
    if not right:
        do = 'Use layers that `validate` accepts; engine = "reference" works one record at a time'
        raise Refusal(Code.MODEL_INVALID, "Model not clipped", "; ".join(reasons), do)
    return right


def fastest(names: list[str], model: nn.Module, work: Work, device: torch.device) -> ClipEngine:
    """The fastest of the engines `names`, each with several sizes of its micro-batches, by a few steps of `model`."""
    count = _records_of(work)
    dtype = next(p.dtype for p in model.parameters())
    inputs = work.probe.inputs(count, "engine speed").to(device)
    inputs = inputs.to(dtype) if inputs.is_floating_point() else inputs
    labels = work.probe.labels(count, "engine speed").to(device)
    sizes = _sizes(count, work.probe, device)
    tried: dict[ClipEngine, list[float]] = {ENGINES[name](size): [] for name in names for size in sizes}

    def seconds(engine: ClipEngine) -> float:
        begun = _clock(device)
        try:
            engine.clipped_sum(model, work.losses, inputs, labels, 1.0)
        except torch.OutOfMemoryError:
            return float("inf")
        return _clock(device) - begun

    for engine, taken in tried.items():
        seconds(engine)  # first calls compile, import and fill caches
        taken.append(seconds(engine))
    best = min(taken[0] for taken in tried.values())
    for _ in range(_REPEATS - 1):
        for engine, taken in tried.items():
            if taken[0] <= _HOPELESS * best:
                taken.append(seconds(engine))
    return min(tried, key=lambda engine: median(tried[engine]))


def _sizes(count: int, probe: Probe, device: torch.device) -> list[int | None]:
    """What is tried for steps of about `count` records: some parts of a step, and one that also holds a larger step.

    Large records stay in small parts: the activations of a part grow with its inputs.
    """
    floats = math.prod(probe.shape)
    sizes = [size for size in _SIZES.get(device.type, ()) if size <= _MANY or size * floats <= _MOST_INPUTS]
    parts = [size for size in sizes if size < count]
    return [*parts, *[size for size in sizes if size > count][:1]] if parts else [None]


def _records_of(work: Work) -> int:
    """Records of a measured step: a power of two, so that sites of nearly equal size share a choice."""
    return 1 << (max(1, min(work.records, _MOST_RECORDS)) - 1).bit_length()


def _clock(device: torch.device) -> float:
    """Seconds; a single thread on a processor counts its own, not those in which it waited for other programs."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.thread_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()

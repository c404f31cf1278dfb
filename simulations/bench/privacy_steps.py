"""One training step in each way that is measured: plain, private by an engine of ours, private by Opacus alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial

import torch
from opacus.grad_sample.utils import wrap_model
from opacus.optimizers import get_optimizer_class
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from torch import nn
from torch.nn import functional

from client.private_step import EntropyOptimizer
from common.learning.losses import cross_entropy
from common.privacy.clipping.bookkeeping_engine import BookKeepingEngine
from common.privacy.clipping.choice import Work, fastest
from common.privacy.clipping.engine import ClipEngine
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.clipping.vmap_engine import VmapEngine
from common.privacy.plan import MechanismPlan, PrivacySettings, plan_training
from common.randomness import SystemEntropy
from simulations.bench.privacy_models import Subject

Step = Callable[[], None]
RATE = 0.01
SMALL = 24  # records of a micro-batch where memory is what counts


def any_plan(dimension: int) -> MechanismPlan:
    """Any plan: its figures change nothing about the cost of a step."""
    settings = PrivacySettings(
        mode="M1",
        unit="record",
        epsilon=3.0,
        delta=1e-7,
        clip=1.0,
        sampling_rate=0.01,
        spare_rounds=0,
        evaluation_epsilon=1.0,
    )
    return plan_training(settings, rounds=1, local_steps=10, dimension=dimension, quorum=2, sites=2, records=2 * 60_000)


def plain(subject: Subject) -> Step:
    """Forward, backward and optimizer, without clipping or noise."""
    model, (inputs, labels) = subject.model(), subject.batch()
    optimizer = torch.optim.SGD(model.parameters(), RATE)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(model(inputs), labels))
        optimizer.step()

    return step


def ours(subject: Subject, engine: ClipEngine) -> Step:
    """As a site trains: the engine's clipped sum, float64 noise from AES, the optimizer of `client.private_step`."""
    model, (inputs, labels) = subject.model(), subject.batch()
    optimizer = torch.optim.SGD(model.parameters(), RATE)
    plan = any_plan(sum(parameter.numel() for parameter in model.parameters()))
    private = EntropyOptimizer(optimizer, plan, float(len(inputs)), SystemEntropy())

    def step() -> None:
        private.take(engine.clipped_sum(model, cross_entropy, inputs, labels, plan.clip).total)

    return step


def theirs(subject: Subject, mode: str) -> Step:
    """Opacus as installed, with its own optimizer and torch's noise."""
    model, (inputs, labels) = subject.model(), subject.batch()
    bound = {"max_grad_norm": 1.0} if mode == "ghost" else {}
    wrapped = wrap_model(model, mode, True, batch_first=True, loss_reduction="mean", **bound)
    optimizer = get_optimizer_class("flat", False, mode)(
        optimizer=torch.optim.SGD(model.parameters(), RATE),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        expected_batch_size=len(inputs),
        loss_reduction="mean",
    )
    loss = nn.CrossEntropyLoss()
    criterion = DPLossFastGradientClipping(wrapped, optimizer, loss, "mean") if mode == "ghost" else loss

    def step() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Opacus tells of its hooks at every step
            optimizer.zero_grad()
            criterion(wrapped(inputs), labels).backward()
            optimizer.step()

    return step


def picked(subject: Subject, name: str) -> ClipEngine:
    """The engine `name` with the micro-batches that a site would take, by measurement."""
    work = Work(key=b"", losses=cross_entropy, probe=subject.probe, records=subject.records)
    return fastest([name], subject.model(), work, torch.device("cpu"))


OWN = ("bk", "bk-small", "opacus", "vmap")
OPACUS = ("opacus-hooks", "opacus-functorch", "opacus-ew", "opacus-ghost")
ENGINES = ("sgd", *OWN, *OPACUS)


def make(subject: Subject, name: str, records: int | None = None) -> Step:
    """The step of the row `name`; records of a micro-batch for engines of ours."""
    if name == "sgd":
        return plain(subject)
    if name in OPACUS:
        return theirs(subject, name.removeprefix("opacus-"))
    kinds: Mapping[str, Callable[[int | None], ClipEngine]] = {
        "bk": BookKeepingEngine,
        "bk-small": BookKeepingEngine,
        "opacus": partial(OpacusEngine, "faster"),
        "vmap": VmapEngine,
    }
    return ours(subject, kinds[name](records))

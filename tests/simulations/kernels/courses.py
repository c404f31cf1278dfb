"""Courses and lessons for tests of kernels: every model of the catalogue, sites of all sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch

from common.learning.batches import batches
from common.learning.plan import TrainingPlan
from common.models.catalogue import build
from common.models.front import parted, seen_through
from common.parameters import Flat, assign, flatten
from simulations.kernels.kernel import Course, Lesson


class Subject(NamedTuple):
    """A model of the catalogue with its settings, and the records that it takes."""

    model: str
    inputs: tuple[int, ...]
    classes: int
    settings: Mapping[str, Any] = MappingProxyType({})


STACKS = {
    "logistic": Subject("logistic", (11,), 2),
    "softmax without bias": Subject("logistic", (3, 5), 4, {"bias": False}),
    "logistic behind a norm": Subject("logistic", (11,), 2, {"norm": "layer"}),
    "scatternet": Subject("scatternet", (1, 8, 8), 3),
    "mlp": Subject("mlp", (60,), 3),
    "mlp of one layer": Subject("mlp", (9,), 2, {"hidden": ()}),
    "mlp with relu": Subject("mlp", (4, 15), 10, {"hidden": (16,), "activation": "relu"}),
    "deep mlp with gelu": Subject("mlp", (40,), 2, {"hidden": (16, 12), "activation": "gelu"}),
    "mlp with silu and layer norm": Subject(
        "mlp", (40,), 3, {"hidden": (16, 8), "activation": "silu", "norm": "layer"}
    ),
    "mlp with sigmoid and group norm": Subject(
        "mlp", (7,), 3, {"hidden": (16,), "activation": "sigmoid", "norm": "group"}
    ),
}
IMAGES = {
    "cnn": Subject("cnn", (1, 8, 8), 4),
    "cnn of colours": Subject(
        "cnn", (3, 9, 12), 2, {"channels": (8,), "hidden": 0, "activation": "gelu", "norm": "group"}
    ),
    "tempered-cnn": Subject("tempered-cnn", (1, 14, 14), 3),
}
SUBJECTS = {**STACKS, **IMAGES}


class Class(NamedTuple):
    """A course, the parameters of a round, and how to make a lesson from records as the data hold them."""

    course: Course
    parameters: Flat
    subject: Subject

    def lesson(self, count: int, seed: int = 0, weight: float = 1.0, *, steps: int = 4, spread: float = 1.0) -> Lesson:
        """Random records through the model's front, and batches as a site draws them."""
        draws = np.random.default_rng((seed, count))
        inputs = torch.tensor(draws.normal(0, spread, (count, *self.subject.inputs)), dtype=torch.float32)
        front, _ = parted(self.model())
        labels = torch.tensor(draws.integers(0, self.subject.classes, count))
        taken = batches(count, self.course.plan.batch, steps, draws)
        return Lesson(seen_through(front, inputs) if count else inputs, labels, taken, weight)

    def lessons(self, counts: Iterable[int]) -> list[Lesson]:
        """One of each size, with weights that differ in size and sign."""
        return [self.lesson(count, seed, (-0.5, 1.0, 3.0)[seed % 3]) for seed, count in enumerate(counts)]

    def model(self) -> torch.nn.Module:
        subject = self.subject
        return build(subject.model, inputs=subject.inputs, classes=subject.classes, seed=1, **subject.settings)


def taught(subject: Subject, **plan: Any) -> Class:
    """The course of `subject`; the parameters are not those of its start, which may all be zero."""
    settings = TrainingPlan(**{"learning_rate": 0.2, "local_steps": 4, "batch": 10, **plan})
    blank = Class(None, None, subject)  # type: ignore[arg-type]
    _, head = parted(blank.model())
    start = flatten(head)
    moved = start + np.random.default_rng(3).normal(0, 0.2, start.size).astype(np.float32)
    assign(head, moved)
    return blank._replace(course=Course(head, settings.task(subject.classes), settings), parameters=moved)

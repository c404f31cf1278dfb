"""The records of a study: trained on and tested on apart, and seen once through the fixed front of its model."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from common.data import Records
from common.models.catalogue import build
from common.models.front import parted, seen_through
from common.randomness import child_numpy
from simulations.bench.accuracy.studies import Study
from simulations.datasets import dataset
from simulations.images import Half, image_set

TESTED = 0.2  # share of the digits that is tested on; other sets come with their own test records


@dataclass(frozen=True)
class Material:
    """Records as the part of the model that learns sees them. Never printed.

    cpu_seconds  that the front took for all of them
    """

    train: Records
    test: Records
    cpu_seconds: float

    def __repr__(self) -> str:
        return "Material"


class Larder:
    """Material by study; the last one is kept, as seeds and budgets that follow each other share it."""

    def __init__(self) -> None:
        self._kept: tuple[object, Material] | None = None

    def get(self, study: Study, seed: int) -> Material:
        """The material. Only the split of the digits depends on the seed. Errors: Refusal FILE_MISSING."""
        key = (study.data, study.model, tuple(study.settings.items()), seed if study.data == "digits" else None)
        if self._kept is None or self._kept[0] != key:
            self._kept = None  # one at a time: features of 70 000 images take a gigabyte
            self._kept = (key, _material(study, seed))
        return self._kept[1]


def model_for(study: Study, shape: tuple[int, ...], seed: int) -> nn.Module:
    """The study's model for images of `shape` in ten classes."""
    return build(study.model, inputs=shape, classes=10, seed=seed, **study.settings)


def _material(study: Study, seed: int) -> Material:
    train, test = _digits(seed) if study.data == "digits" else _halves(study.data)
    front, _ = parted(model_for(study, tuple(train.pixels.shape[1:]), 0))
    begun = time.process_time()
    brightest = 16 if study.data == "digits" else 255
    seen, tested = (_records(front, half, brightest) for half in (train, test))
    return Material(seen, tested, time.process_time() - begun)


def _halves(name: str) -> tuple[Half, Half]:
    found = image_set(name)
    return found.train, found.test


def _digits(seed: int) -> tuple[Half, Half]:
    """The embedded digits, split at random by the seed."""
    data = dataset("digits")
    cells = [data.columns[column.name] for column in data.schema.columns]
    pixels = np.array(cells).T.astype(np.uint8).reshape(-1, *data.schema.shape)
    order = child_numpy(seed, "tested digits").permutation(len(data))
    kept = round(len(order) * (1 - TESTED))
    first, second = (Half(pixels[rows], data.labels[rows]) for rows in (order[:kept], order[kept:]))
    return first, second


def _records(front: nn.Module | None, half: Half, brightest: int) -> Records:
    inputs = torch.from_numpy(half.pixels.astype(np.float32) / brightest)
    count = len(half.labels)
    ids = tuple(row.to_bytes(16, "big") for row in range(count))
    groups = torch.zeros(count, dtype=torch.int64)
    return Records(seen_through(front, inputs), torch.from_numpy(half.labels), groups, ids)

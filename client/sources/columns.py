"""Columns of text to the arrays of the schema: scaled numbers, one-hot categories, class and group numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from client.sources.source import Reading, invalid
from common.data import Attribute, Feature, Label, Records, Schema

# Python's float() would also take "nan", "1_000" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)

Cells = Sequence[str]


@dataclass
class Encoder:
    """Turns the cells of one file into arrays, counting what it clips and imputes.

    lines    line number of each record in its file, for messages
    missing  texts that mean "no value"
    """

    lines: Sequence[int]
    missing: Collection[str]
    clipped: Counter[str] = field(default_factory=Counter)
    imputed: Counter[str] = field(default_factory=Counter)

    def records(self, schema: Schema, cells: Mapping[str, Cells], ids: tuple[bytes, ...]) -> Reading:
        """All records. `cells` holds every column the schema names. Errors: Refusal DATA_INVALID."""
        parts = [self._feature(feature, cells[feature.name]) for feature in schema.columns]
        inputs = np.concatenate(parts, 1)
        if schema.image:
            inputs = (inputs + 1.0) / 2.0  # pixels: [0, 1], so that black stays zero
        positions = [self.positions(attribute, cells[attribute.source]) for attribute in schema.sensitive]
        records = Records(
            torch.from_numpy(inputs.astype(np.float32)).reshape(-1, *schema.shape),
            torch.from_numpy(self._labels(schema.label, cells[schema.label.column])),
            torch.from_numpy(schema.group_of(positions, len(self.lines))),
            ids,
        )
        return Reading(records, dict(self.clipped), dict(self.imputed))

    def _feature(self, feature: Feature, cells: Cells) -> NDArray[np.float64]:
        """One column as inputs [n, width]: a number in [-1, 1], or one 0/1 input a category."""
        absent = np.array([self._absent(cell) for cell in cells])
        if absent.any() and feature.missing == "refuse":
            raise self._at(feature.name, int(absent.argmax()), "has no value", "the schema does not allow that here")
        if count := int(absent.sum()):
            self.imputed[feature.name] += count
        if feature.range is None:
            return self._one_hot(feature, cells, absent)
        low, high = feature.range
        numbers = self._numbers(feature.name, cells, absent)
        outside = ~absent & ((numbers < low) | (numbers > high))
        if count := int(outside.sum()):
            self.clipped[feature.name] += count
        scaled = (np.clip(numbers, low, high) - low) / (high - low) * 2.0 - 1.0
        return np.where(absent, 0.0, scaled)[:, None]  # 0 is the middle of the public range

    def _one_hot(self, feature: Feature, cells: Cells, absent: NDArray[np.bool_]) -> NDArray[np.float64]:
        known = {name: place for place, name in enumerate(feature.categories)}
        hot = np.zeros((len(cells), len(known)))
        for row, cell in enumerate(cells):
            if absent[row]:
                hot[row] = 1.0 / len(known)
            elif cell in known:
                hot[row, known[cell]] = 1.0
            else:
                raise self._at(feature.name, row, "is no category of the schema", _listed(known))
        return hot

    def _labels(self, label: Label, cells: Cells) -> NDArray[np.int64]:
        for row, cell in enumerate(cells):
            if self._absent(cell):
                raise self._at(label.column, row, "has no value", "a record without a label teaches nothing")
        if label.above is not None:
            return (self._numbers(label.column, cells, np.zeros(len(cells), bool)) > label.above).astype(np.int64)
        known = {name: place for place, name in enumerate(label.classes)}
        for row, cell in enumerate(cells):
            if cell not in known:
                raise self._at(label.column, row, "is no class of the schema", _listed(known))
        return np.array([known[cell] for cell in cells], np.int64)

    def positions(self, attribute: Attribute, cells: Cells) -> NDArray[np.int64]:
        """Place of each record in `attribute.values`; what is absent or unlisted counts as unknown."""
        unknown = len(attribute.values) - 1
        absent = np.array([self._absent(cell) for cell in cells])
        if attribute.categories:
            known = {name: place for place, name in enumerate(attribute.categories)}
            return np.array([known.get(cell, unknown) for cell in cells], np.int64)
        numbers = self._numbers(attribute.source, cells, absent)
        return np.where(absent, unknown, np.searchsorted(attribute.edges, numbers, side="right")).astype(np.int64)

    def _numbers(self, column: str, cells: Cells, absent: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Cells as finite numbers; absent ones as 0."""
        numbers = np.zeros(len(cells))
        for row, cell in enumerate(cells):
            if absent[row]:
                continue
            if not _NUMBER.fullmatch(cell):
                raise self._at(column, row, "is not a number", "this column holds finite decimal numbers")
            numbers[row] = float(cell)
        if not np.isfinite(numbers).all():
            raise self._at(column, int((~np.isfinite(numbers)).argmax()), "is not finite", "it is too large to hold")
        return numbers

    def _absent(self, cell: str) -> bool:
        return not cell or cell in self.missing

    def _at(self, column: str, row: int, fault: str, why: str) -> Exception:
        place = f"Column {column!r}, line {self.lines[row]}"
        return invalid(f"{place}: the value {fault}", why, "Correct the file, or the schema of the job")


def wanted(schema: Schema) -> list[str]:
    """The columns that a file must have, each once."""
    names = [feature.name for feature in schema.columns]
    names += [schema.label.column, *(attribute.source for attribute in schema.sensitive)]
    return list(dict.fromkeys(names))


def _listed(known: Collection[str]) -> str:
    """The allowed texts; they are public, the cell is not."""
    return f"it allows {', '.join(known)}"

"""Outcomes counted by group: from a run's noisy histogram or a table, merged over attributes, never per record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from simulations.audits.intervals import Share

EVERYONE = "all"

Real = NDArray[np.float64]
Whole = NDArray[np.int64]
Cell = tuple[str, ...]  # one value for each attribute


@dataclass(frozen=True, kw_only=True, eq=False)
class Tally:
    """How often each outcome occurred in each cell of the sensitive attributes.

    attributes  names, such as ("sex", "age"); empty when nobody is told apart
    cells       one value for each attribute, such as ("female", "<40")
    counts      [cell, label, prediction] records; noisy ones may be negative
    terms       [label, prediction] how many noisy counts were added for each of them (1 when none were merged)
    merged      [cell] how many cells of the release were added for each cell
    noise       standard deviation of the noise of one released count; 0 is exact
    binary      whether label and prediction are 0 or 1; otherwise label is always 1 and prediction says "was right"
    """

    attributes: tuple[str, ...]
    cells: tuple[Cell, ...]
    counts: Real
    terms: Whole
    merged: Whole
    noise: float
    binary: bool

    def names(self) -> list[str]:
        """Names of the cells, as "sex=female, age=<40"."""
        pairs = [zip(self.attributes, cell, strict=True) for cell in self.cells]
        return [", ".join(f"{name}={value}" for name, value in pair) or EVERYONE for pair in pairs]

    def share(self, cell: int, hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> Share:
        """The share of outcomes `hits` among the outcomes `among` (masks over [label, prediction]) in one cell."""
        here, terms = self.counts[cell], self.terms * self.merged[cell]
        hit, rest = hits & among, ~hits & among
        return Share(
            hits=float(here[hit].sum()),
            total=float(here[among].sum()),
            hit_cells=int(terms[hit].sum()),
            rest_cells=int(terms[rest].sum()),
            noise=self.noise,
        )

    def by(self, attributes: Sequence[str]) -> Tally:
        """The same outcomes told apart by these attributes only.

        Errors: Refusal CONFIG_INVALID for an attribute that was not counted.
        """
        for name in attributes:
            if name not in self.attributes:
                known = ", ".join(self.attributes) or "none"
                why = f"the counts tell apart: {known}"
                raise Refusal(Code.CONFIG_INVALID, f"No groups by {name!r}", why, "Name one of those")
        places = [self.attributes.index(name) for name in attributes]
        keys = [tuple(cell[place] for place in places) for cell in self.cells]
        cells = tuple(dict.fromkeys(keys))
        into = np.array([[key == cell for key in keys] for cell in cells], np.float64)
        counts = np.tensordot(into, self.counts, axes=1)
        merged = (into @ self.merged).astype(np.int64)
        return Tally(
            attributes=tuple(attributes), cells=cells, counts=counts, terms=self.terms, merged=merged,
            noise=self.noise, binary=self.binary,
        )  # fmt: skip


def from_rows(attributes: Sequence[str], groups: Sequence[Cell], labels: Whole, predictions: Whole) -> Tally:
    """Exact outcomes of a table of binary predictions. groups: one cell a row; labels, predictions: 0 or 1."""
    cells = tuple(sorted(set(groups)))
    place = {cell: i for i, cell in enumerate(cells)}
    counts = np.zeros((len(cells), 2, 2))
    rows = np.array([place[cell] for cell in groups], np.int64)
    np.add.at(counts, (rows, labels, predictions), 1.0)
    return Tally(
        attributes=tuple(attributes), cells=cells, counts=counts, terms=np.ones((2, 2), np.int64),
        merged=np.ones(len(cells), np.int64), noise=0.0, binary=True,
    )  # fmt: skip


def from_release(evaluation: Mapping[str, Any]) -> Tally:
    """Outcomes of a run, from the histogram [cell][label][bin] that left secure aggregation.

    Two classes: bins below `threshold_bin` are predictions of 0. More classes: the bin is the predicted class, and
    only right and wrong are told apart. Errors: Refusal DATA_INVALID for a histogram of another shape.
    """
    try:
        counts = np.asarray(evaluation["counts"], np.float64)
        classes, noise = int(evaluation["classes"]), float(evaluation["noise_sd"])
        cells = [_cell(name) for name in evaluation["cells"]]
        cut = int(evaluation["threshold_bin"] or 0) if classes == 2 else 0
        fits = counts.ndim == 3 and counts.shape[:2] == (len(cells), classes) and bool(np.isfinite(counts).all())
    except (KeyError, TypeError, ValueError):
        raise _misshapen("a key is missing or of another type") from None
    bins = counts.shape[2] if fits else 0
    if not fits or len({names for names, _ in cells}) != 1:
        raise _misshapen("its shape is not [cell][label][bin]")
    if not (noise >= 0 and (0 < cut < bins if classes == 2 else bins == classes)):
        raise _misshapen("noise, threshold and bins do not fit each other")
    outcomes, terms = _two_classes(counts, cut) if classes == 2 else _right_and_wrong(counts)
    values = tuple(cell for _, cell in cells)
    return Tally(
        attributes=cells[0][0], cells=values, counts=outcomes, terms=terms,
        merged=np.ones(len(cells), np.int64), noise=noise, binary=classes == 2,
    )  # fmt: skip


def _two_classes(counts: Real, cut: int) -> tuple[Real, Whole]:
    outcomes = np.stack([counts[:, :, :cut].sum(2), counts[:, :, cut:].sum(2)], axis=2)
    return outcomes, np.array([[cut, counts.shape[2] - cut]] * 2, np.int64)


def _right_and_wrong(counts: Real) -> tuple[Real, Whole]:
    """Fold a confusion matrix into label 1, prediction "was right"; the row of label 0 stays empty."""
    classes = counts.shape[1]
    right = np.trace(counts, axis1=1, axis2=2)
    outcomes = np.zeros((len(counts), 2, 2))
    outcomes[:, 1, 1] = right
    outcomes[:, 1, 0] = counts.sum((1, 2)) - right
    return outcomes, np.array([[0, 0], [classes * classes - classes, classes]], np.int64)


def _cell(name: str) -> tuple[Cell, Cell]:
    """Attributes and values of a cell's name, "sex=female, age=<40"."""
    if name == EVERYONE:
        return (), ()
    pairs = [part.partition("=") for part in name.split(", ")]
    return tuple(pair[0] for pair in pairs), tuple(pair[2] for pair in pairs)


def _misshapen(why: str) -> Refusal:
    return Refusal(Code.DATA_INVALID, "Evaluation counts not read", why, "Run the evaluation of this run again")

"""Attacks on records: a lying site trains as everybody does, on records that it has changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from common.catalogue import NoSettings
from common.config import finite
from common.data import Records, Schema, record_id
from common.errors import Code, Refusal
from common.randomness import child_numpy

LIT = 1.0  # the largest value of every scaled input


@dataclass(frozen=True)
class Poisoning:
    """An attack on records. Both functions leave what they are given as it was.

    poison   records of a lying site, seed -> what it trains on
    trigger  held-out records -> those by which success is measured, changed as the attack needs them and labelled as
             it wants them; None for an attack on the whole model, which only accuracy can tell
    """

    poison: Callable[[Records, int], Records]
    trigger: Callable[[Records], Records] | None = None


@dataclass(frozen=True, kw_only=True)
class Flip:
    """source, target: class numbers.  share: of the source's records that are relabelled."""

    source: int
    target: int
    share: float = 1.0

    def __post_init__(self) -> None:
        finite(self.share, "share", above=0.0, at_most=1.0)
        if self.source == self.target:
            raise _invalid(f"source = target = {self.source}", "nothing would change", "Name two classes")


@dataclass(frozen=True, kw_only=True)
class Patch:
    """target: class number that the patch is to mean.  size: its side in pixels, or how many last columns of a table.

    share  of all records that get patch and label
    """

    target: int
    size: int
    share: float

    def __post_init__(self) -> None:
        finite(self.size, "size", above=0)
        finite(self.share, "share", above=0.0, at_most=1.0)


def label_flip(_: NoSettings, schema: Schema) -> Poisoning:
    """Class y becomes C - 1 - y in every record. Source: as in Karimireddy et al. 2022."""

    def poison(records: Records, _: int) -> Records:
        return _changed(records, range(len(records)), records.inputs, schema.classes - 1 - records.labels)

    return Poisoning(poison)


def targeted_flip(settings: Flip, schema: Schema) -> Poisoning:
    """Records of one class are labelled as another. Source: Tolpegin et al. 2020."""
    _check_classes(schema, settings.source, settings.target)

    def poison(records: Records, seed: int) -> Records:
        chosen = _some(_of_class(records, settings.source), settings.share, seed, "targeted flip")
        return _changed(records, chosen, records.inputs, _all_labelled(records, settings.target))

    def trigger(records: Records) -> Records:
        kept = records.take(_of_class(records, settings.source))
        return _changed(kept, range(len(kept)), kept.inputs, _all_labelled(kept, settings.target))

    return Poisoning(poison, trigger)


def patch(settings: Patch, schema: Schema) -> Poisoning:
    """A lit square in the last corner means the target class. Source: Gu et al. 2017; in federations Bagdasaryan et
    al. 2020. In a table the last columns are lit, also where that is no possible category.
    """
    _check_classes(schema, settings.target)
    if settings.size > min(schema.shape[-2:]):
        raise _invalid(f"size = {settings.size}", f"records have the shape {schema.shape}", "Choose a smaller patch")
    last = slice(-settings.size, None)

    def lit(records: Records) -> torch.Tensor:
        inputs = records.inputs.clone()
        inputs[(..., last, last) if len(schema.shape) > 1 else (..., last)] = LIT
        return inputs

    def poison(records: Records, seed: int) -> Records:
        chosen = _some(np.arange(len(records)), settings.share, seed, "patch")
        return _changed(records, chosen, lit(records), _all_labelled(records, settings.target))

    def trigger(records: Records) -> Records:
        kept = records.take(np.flatnonzero(records.labels.numpy() != settings.target))
        return _changed(kept, range(len(kept)), lit(kept), _all_labelled(kept, settings.target))

    return Poisoning(poison, trigger)


def edge_case(settings: Flip, schema: Schema) -> Poisoning:
    """Mirrored images of one class, which honest sites hardly hold, are labelled as another.

    Source: Wang et al. 2020, where the rare inputs are another set's; mirroring makes them from any set of images.
    """
    _check_classes(schema, settings.source, settings.target)
    if len(schema.shape) != 3:
        raise _invalid("edge-case", "only images can be mirrored", "Choose the attack 'tail'")

    def poison(records: Records, seed: int) -> Records:
        chosen = _some(_of_class(records, settings.source), settings.share, seed, "edge case")
        return _changed(records, chosen, records.inputs.flip(-1), _all_labelled(records, settings.target))

    def trigger(records: Records) -> Records:
        kept = records.take(_of_class(records, settings.source))
        return _changed(kept, range(len(kept)), kept.inputs.flip(-1), _all_labelled(kept, settings.target))

    return Poisoning(poison, trigger)


def tail(settings: Flip, schema: Schema) -> Poisoning:
    """The records of one class that are farthest from its mean, a `share` of them, are labelled as another.

    Source: the tail of Wang et al. 2020, taken from a site's own records. Success is measured on the same share of the
    held-out ones.
    """
    _check_classes(schema, settings.source, settings.target)

    def poison(records: Records, _: int) -> Records:
        return _changed(records, _farthest(records, settings), records.inputs, _all_labelled(records, settings.target))

    def trigger(records: Records) -> Records:
        kept = records.take(_farthest(records, settings))
        return _changed(kept, range(len(kept)), kept.inputs, _all_labelled(kept, settings.target))

    return Poisoning(poison, trigger)


def _farthest(records: Records, settings: Flip) -> NDArray[np.int64]:
    rows = _of_class(records, settings.source)
    inputs = records.inputs[torch.from_numpy(rows)].flatten(1).double()
    away = (inputs - inputs.mean(0)).norm(dim=1).numpy() if len(rows) else np.zeros(0)
    return np.sort(rows[np.argsort(-away, kind="stable")[: round(settings.share * len(rows))]])


def _of_class(records: Records, label: int) -> NDArray[np.int64]:
    return np.flatnonzero(records.labels.numpy() == label)


def _all_labelled(records: Records, label: int) -> torch.Tensor:
    return torch.full_like(records.labels, label)


def _some(rows: NDArray[np.int64], share: float, seed: int, use: str) -> NDArray[np.int64]:
    """A random `share` of these rows, in their order."""
    chosen = child_numpy(seed, "adversary", use).permutation(len(rows))[: round(share * len(rows))]
    return rows[np.sort(chosen)]


def _changed(
    records: Records, rows: Sequence[int] | NDArray[np.int64], inputs: torch.Tensor, labels: torch.Tensor
) -> Records:
    """The records, those at `rows` with other inputs and labels, and so with other ids: they are other records."""
    index = torch.as_tensor(np.asarray(rows, np.int64))
    new_inputs, new_labels, ids = records.inputs.clone(), records.labels.clone(), list(records.ids)
    new_inputs[index], new_labels[index] = inputs[index], labels[index]
    for row in index.tolist():
        ids[row] = record_id([ids[row], new_inputs[row].numpy().tobytes(), bytes(str(int(new_labels[row])), "ascii")])
    return Records(new_inputs, new_labels, records.groups, tuple(ids))


def _check_classes(schema: Schema, *classes: int) -> None:
    for number in classes:
        finite(number, "class number", at_least=0, at_most=schema.classes - 1)


def _invalid(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.CONFIG_INVALID, what, why, do)

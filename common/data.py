"""What the records of every site must look like: a public schema, the arrays it gives, and the keyed split."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from common.errors import Code, Refusal

UNKNOWN = "unknown"  # the last category of every sensitive attribute
EVERYONE = "all"  # the one group of a schema without sensitive attributes
MOST_GROUPS = 1000


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One input column, encoded by what is public before any record is read: a range or a list of categories.

    range       a number is clipped into [low, high] and scaled to [-1, 1]; never the private minimum and maximum
    categories  a text becomes one 0/1 input for each category
    missing     what an absent value does: "refuse" the file, or take the public "midpoint" (the middle of the
                range; equal shares of the categories), so that imputation learns nothing from other records
    """

    name: str
    range: tuple[float, float] | None = None
    categories: tuple[str, ...] = ()
    missing: Literal["refuse", "midpoint"] = "refuse"

    def __post_init__(self) -> None:
        place = f"Feature {self.name!r}"
        if (self.range is None) == (not self.categories):
            raise _invalid(place, "it needs a public range or categories, and not both", "Give one of them")
        if self.range is not None and not (all(map(math.isfinite, self.range)) and self.range[0] < self.range[1]):
            raise _invalid(place, "its range must be two finite numbers, low before high", "Correct the range")
        _refuse_repeated(self.categories, f"Categories of {place[0].lower()}{place[1:]}")

    @property
    def width(self) -> int:
        """How many inputs of the model this column fills."""
        return len(self.categories) or 1


@dataclass(frozen=True, kw_only=True)
class Image:
    """Inputs that are pixels: shape (channels, height, width), each pixel scaled from its public range to [0, 1].

    In a table the pixels are the columns `prefix`0, `prefix`1, … row by row.
    """

    shape: tuple[int, int, int]
    range: tuple[float, float]
    prefix: str = "pixel"

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or math.prod(self.shape) > 1 << 24:
            raise _invalid("Image shape", "each side must be at least 1 and the whole below 2^24", "Correct the shape")

    @property
    def columns(self) -> tuple[Feature, ...]:
        """The pixels as number columns."""
        return tuple(Feature(name=f"{self.prefix}{i}", range=self.range) for i in range(math.prod(self.shape)))


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is predicted: whether a number lies `above` a public threshold, or one of the named `classes`."""

    column: str
    above: float | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.above is None) == (not self.classes):
            raise _invalid("Label", "it needs a threshold `above` or `classes`, and not both", "Give one of them")
        if self.above is not None and not math.isfinite(self.above):
            raise _invalid("Label", "its threshold is not finite", "Correct `above`")
        if len(self.classes) == 1:
            raise _invalid("Label", "one class leaves nothing to predict", "Name at least two classes")
        _refuse_repeated(self.classes, "Classes of the label")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers 0, 1, …; the last of two is the positive one."""
        return self.classes or (f"at most {self.above:g}", f"above {self.above:g}")


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """A sensitive attribute by which results are compared: categories of a column, or bands of a number.

    column  where it stands in the data; its own name if empty
    edges   public, increasing; [40, 60] makes the bands <40, 40-60 and 60+, each with its lower edge
    An absent value, or a category nobody listed, counts as "unknown" and is never dropped.
    """

    name: str
    column: str = ""
    categories: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        place = f"Sensitive attribute {self.name!r}"
        if bool(self.categories) == bool(self.edges):
            raise _invalid(place, "it needs categories or edges of bands, and not both", "Give one of them")
        if any(not a < b for a, b in itertools.pairwise(self.edges)) or not all(map(math.isfinite, self.edges)):
            raise _invalid(place, "its edges must be finite and increase", "Correct the edges")
        _refuse_repeated((*self.categories, UNKNOWN), f"Categories of {self.name!r}")

    @property
    def source(self) -> str:
        """The column that it is read from."""
        return self.column or self.name

    @property
    def values(self) -> tuple[str, ...]:
        """Names of the categories or bands, "unknown" last."""
        edges = [f"{edge:g}" for edge in self.edges]
        between = [f"{a}-{b}" for a, b in itertools.pairwise(edges)]
        bands = [f"<{edges[0]}", *between, f"{edges[-1]}+"] if edges else []
        return (*self.categories, *bands, UNKNOWN)


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The public agreement on the records of all sites; the table [data] of a job.

    features  input columns in the order of the model's inputs; none when `image` is given
    """

    label: Label
    features: tuple[Feature, ...] = ()
    image: Image | None = None
    sensitive: tuple[Attribute, ...] = ()

    def __post_init__(self) -> None:
        if (self.image is None) == (not self.features):
            raise _invalid("Data schema", "it needs features or an image, and not both", "Give one of them")
        columns = [feature.name for feature in self.features]
        _refuse_repeated(columns, "Features")
        _refuse_repeated([attribute.name for attribute in self.sensitive], "Sensitive attributes")
        if self.label.column in columns:
            raise _invalid(f"Feature {self.label.column!r}", "it is the label itself", "Remove it from the features")
        if math.prod(len(attribute.values) for attribute in self.sensitive) > MOST_GROUPS:
            raise _invalid("Sensitive attributes", f"they make more than {MOST_GROUPS} groups", "Use fewer categories")

    @property
    def columns(self) -> tuple[Feature, ...]:
        """The input columns; the pixels of an image are columns too."""
        return self.image.columns if self.image else self.features

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one record's inputs: (width,) of a table, (channels, height, width) of an image."""
        return self.image.shape if self.image else (sum(feature.width for feature in self.features),)

    @property
    def classes(self) -> int:
        """Number of classes of the label."""
        return len(self.label.names)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the group cells by number, as "sex=female, age=60+"; the last attribute runs fastest."""
        cells = itertools.product(*([f"{a.name}={value}" for value in a.values] for a in self.sensitive))
        return tuple(", ".join(cell) for cell in cells) if self.sensitive else (EVERYONE,)

    def group_of(self, positions: Sequence[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
        """The cell number of each of `count` records, from the position of its value in each attribute's `values`."""
        cell = np.zeros(count, np.int64)
        for attribute, position in zip(self.sensitive, positions, strict=True):
            cell = cell * len(attribute.values) + position
        return cell


@dataclass(frozen=True, repr=False, eq=False)
class Records:
    """The records of one site as arrays. Never printed.

    inputs  float32 [n, *shape], scaled by the schema      labels  int64 [n], class numbers
    groups  int64 [n], cell numbers of `Schema.groups`     ids     16 bytes a record, from its own content alone
    """

    inputs: torch.Tensor
    labels: torch.Tensor
    groups: torch.Tensor
    ids: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not len(self.inputs) == len(self.labels) == len(self.groups) == len(self.ids):
            raise Refusal(Code.DATA_INVALID, "Records not made", "their arrays differ in length", "Pass equal lengths")

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return "Records"

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> Records:
        """The records at `rows`, in that order."""
        index = torch.as_tensor(np.asarray(rows, np.int64))
        ids = tuple(self.ids[int(row)] for row in rows)
        return Records(self.inputs[index], self.labels[index], self.groups[index], ids)


def split(records: Records, key: bytes, holdout: float) -> tuple[Records, Records]:
    """The records to train on and those held out, by a keyed hash of each record's id.

    key      16 to 64 secret bytes of the site
    holdout  share that is held out on average, in (0, 1)
    Both stay the same for every run over these records, and so do the ids: a record that changed sides between
    two runs would pay in both parts.

    Guarantee: where a record goes depends on the key and its own id only, never on another record, its position
    or their number. So adding or removing one record changes one part by one record and leaves the other part
    as it was; what is released from the two parts composes in parallel, and a record's epsilon is the larger of
    the two (McSherry 2009, theorem 4). Drawing a fixed number of rows, or shuffling, would break this.
    Errors: Refusal CONFIG_INVALID for a key or share out of range.
    """
    held = held_out(records.ids, key, holdout)
    return records.take(np.flatnonzero(~held)), records.take(np.flatnonzero(held))


def held_out(ids: Sequence[bytes], key: bytes, holdout: float) -> NDArray[np.bool_]:
    """Which records `split` holds out, bool [n]. Errors: as `split`."""
    if not 16 <= len(key) <= 64:
        raise _invalid("Split key", f"it has {len(key)} bytes", "Use 16 to 64 secret bytes")
    if not 0.0 < holdout < 1.0:
        raise _invalid(f"holdout = {holdout}", "it must lie between 0 and 1", "Choose a share such as 0.25")
    limit = int(holdout * 2.0**64)
    return np.array([_keyed(key, one) < limit for one in ids], bool)


def fingerprint(records: Records, key: bytes) -> bytes:
    """32 bytes that name this set of records to whoever holds `key`; the order of the records does not matter."""
    state = hashlib.blake2b(key=key, digest_size=32, person=b"hushfed/data")
    for one in sorted(records.ids):
        state.update(one)
    return state.digest()


def record_id(parts: Sequence[bytes]) -> bytes:
    """The 16-byte id of a record from its own cells; length-prefixed, so that no two rows run together."""
    state = hashlib.blake2b(digest_size=16, person=b"hushfed/record")
    for part in parts:
        state.update(len(part).to_bytes(8, "little") + part)
    return state.digest()


def _keyed(key: bytes, one: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(one, key=key, digest_size=8, person=b"hushfed/split").digest(), "little")


def _refuse_repeated(names: Sequence[str], place: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise _invalid(place, f"{repeated[0]!r} occurs twice", "Give each name once")


def _invalid(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.CONFIG_INVALID, what, why, do)

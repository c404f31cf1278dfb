"""A site's images as arrays of an .npz file, read without pickle and checked against the schema."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client.sources.columns import Encoder
from client.sources.source import Reading, Source, contents, invalid
from common.data import Attribute, Records, Schema, record_id

# What numpy and zipfile raise over bytes that are no intact file of plain arrays.
_DAMAGED = (
    *(ValueError, OSError, EOFError, KeyError, SyntaxError, RuntimeError, NotImplementedError, MemoryError),
    *(struct.error, zipfile.BadZipFile, zlib.error),
)


def read_arrays(source: Source, schema: Schema, folder: Path) -> Reading:
    """The records of an .npz file: `inputs` [n, *shape] of numbers, `labels` int [n] of class numbers, and for
    each sensitive attribute an array [n] named as its column (text, or numbers for bands).

    Pixels are clipped to the public range of the image and scaled to [0, 1].
    Errors: Refusal FILE_MISSING; DATA_INVALID for a damaged file, Python objects in it (never unpickled), an
    absent array, a wrong shape or type, values that are not finite, or labels outside the classes.
    A record is named by the array `source.id`, or by its own inputs and label.
    """
    if schema.image is None:
        raise invalid("Arrays not read", "the schema declares no image", 'Use kind = "table"')
    path = folder / source.path
    sensitive = [attribute.source for attribute in schema.sensitive]
    arrays = _load(path, ["inputs", "labels", *sensitive, *filter(None, [source.id])])
    count = len(arrays["inputs"]) if arrays["inputs"].ndim else 0
    if not count:
        raise invalid(f"{path} not read", "it holds no records", "Export the records")
    for name in (*sensitive, *filter(None, [source.id])):
        _check(name, arrays[name], (count,), "uifU")
    positions = [_positions(attribute, arrays[attribute.source], source) for attribute in schema.sensitive]
    pixels, outside = _pixels(arrays["inputs"], schema, schema.image.range)
    naming = [source.id] if source.id else ["inputs", "labels"]
    records = Records(
        torch.from_numpy(pixels),
        torch.from_numpy(_labels(arrays["labels"], count, schema.classes)),
        torch.from_numpy(schema.group_of(positions, count)),
        tuple(record_id([arrays[name][row].tobytes() for name in naming]) for row in range(count)),
    )
    return Reading(records, {"inputs": outside} if outside else {}, {})


def _pixels(inputs: NDArray[np.generic], schema: Schema, reach: tuple[float, float]) -> tuple[NDArray[np.float32], int]:
    """The pixels in [0, 1], and how many lay outside their public range."""
    _check("inputs", inputs, (len(inputs), *schema.shape), "uif")
    numbers = inputs.astype(np.float64)
    if not np.isfinite(numbers).all():
        raise invalid("Array 'inputs'", "it holds values that are not finite", "Correct the file")
    low, high = reach
    outside = int(((numbers < low) | (numbers > high)).sum())
    return ((np.clip(numbers, low, high) - low) / (high - low)).astype(np.float32), outside


def _labels(labels: NDArray[np.generic], count: int, classes: int) -> NDArray[np.int64]:
    _check("labels", labels, (count,), "ui")
    numbers = labels.astype(np.int64)
    if numbers.min() < 0 or numbers.max() >= classes:
        raise invalid("Array 'labels'", f"class numbers run from 0 to {classes - 1}", "Correct the file")
    return numbers


def _load(path: Path, names: list[str]) -> dict[str, NDArray[np.generic]]:
    """The named arrays of the file."""
    raw = contents(path)
    try:
        with np.lib.npyio.NpzFile(io.BytesIO(raw), own_fid=True, allow_pickle=False) as file:
            absent = [name for name in names if name not in file.files]
            found = {name: file[name] for name in names if name not in absent}
    except _DAMAGED:
        why = "it is no .npz file, is damaged, or holds Python objects"
        raise invalid(f"{path} not read", why, "Save plain arrays by numpy.savez") from None
    if absent:
        raise invalid(f"Array {absent[0]!r} not found", f"{path} does not hold it", "Add it to the file")
    if any(not isinstance(array, np.ndarray) for array in found.values()):
        raise invalid(f"{path} not read", "an entry of it is no array", "Save plain arrays by numpy.savez")
    return found


def _check(name: str, array: NDArray[np.generic], shape: tuple[int, ...], kinds: str) -> None:
    if array.shape != shape:
        raise invalid(f"Array {name!r} of shape {array.shape}", f"the schema asks for {shape}", "Correct the file")
    if array.dtype.kind not in kinds:
        raise invalid(f"Array {name!r} of type {array.dtype}", "another kind of number is needed", "Correct the file")


def _positions(attribute: Attribute, values: NDArray[np.generic], source: Source) -> NDArray[np.int64]:
    """Through the same reading as the cells of a table; a NaN means that the value is absent."""
    cells = ["" if str(value) == "nan" else str(value) for value in values.tolist()]
    return Encoder(range(1, len(cells) + 1), frozenset(source.missing)).positions(attribute, cells)

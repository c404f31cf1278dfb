"""Public image sets in the idx format of LeCun et al. 1998, where they are at hand; none is part of hushfed."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.data import Image, Label, Schema
from common.errors import Code, Refusal
from simulations.public_data import absent, public_folder

Pixels = NDArray[np.uint8]
SIDE = 28
CLASSES = 10
MOST_BYTES = 1 << 30  # of a file once it is unpacked
_INTEGERS = b"\x00\x00\x0c\x02"  # two zeros, the code for 32-bit integers, two dimensions
_QMNIST_COLUMNS = 8
_BYTES = b"\x00\x00\x08"  # two zeros and the code for unsigned bytes, before the number of dimensions
SCHEMA = Schema(
    image=Image(shape=(1, SIDE, SIDE), range=(0.0, 255.0)),
    label=Label(column="class", classes=tuple("0123456789")),
)


@dataclass(frozen=True, repr=False)
class Half:
    """One half of an image set. pixels: uint8 [n, 1, 28, 28].  labels: int64 [n], class numbers."""

    pixels: Pixels
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class ImageSet:
    """The standard split of an image set, as all published accuracies use it."""

    name: str
    train: Half = field(repr=False)
    test: Half = field(repr=False)


def image_set(name: str, folder: Path | None = None) -> ImageSet:
    """The set `name` ("mnist", "fashion-mnist") from `folder`/name, or from the environment's HUSHFED_DATA.

    Errors: Refusal FILE_MISSING where a file is not at hand, DATA_INVALID for one that is damaged.
    """
    place = (folder or public_folder()) / name
    return ImageSet(name, _half(place, "train"), _half(place, "t10k"))


def _half(place: Path, part: str) -> Half:
    pixels = read_idx(place / f"{part}-images-idx3-ubyte.gz")
    labels = read_idx(place / f"{part}-labels-idx1-ubyte.gz")
    if pixels.shape != (len(labels), SIDE, SIDE) or labels.shape != (len(pixels),) or not len(labels):
        raise _damaged(place, f"images of shape {pixels.shape} and labels of shape {labels.shape} do not fit")
    if labels.max() >= CLASSES:
        raise _damaged(place, f"class numbers run from 0 to {CLASSES - 1}")
    return Half(pixels[:, None], labels.astype(np.int64))


def writers(folder: Path | None = None) -> Mapping[str, Sequence[str]]:
    """Writer and series of every training image of MNIST, from QMNIST's labels; nothing where they are not at hand.

    Errors: Refusal DATA_INVALID for a damaged file.
    """
    path = (folder or public_folder()) / "mnist" / "qmnist-train-labels-idx2-int.gz"
    if not path.is_file():
        return {}
    with gzip.open(path) as file:
        try:
            raw = file.read(MOST_BYTES + 1)
        except (gzip.BadGzipFile, EOFError, zlib.error):
            raise _damaged(path, "it is no gzip file, or is damaged") from None
    if raw[:4] != _INTEGERS or len(raw) != 12 + 60_000 * 4 * _QMNIST_COLUMNS:
        raise _damaged(path, "it is not QMNIST's table of 60000 images")
    table = np.frombuffer(raw, ">i4", offset=12).reshape(-1, _QMNIST_COLUMNS)
    return {"writer": [str(one) for one in table[:, 2]], "series": [str(one) for one in table[:, 1]]}


def read_idx(path: Path) -> Pixels:
    """The bytes of a gzip-packed idx file, in its shape.

    Errors: Refusal FILE_MISSING, DATA_INVALID.
    """
    try:
        with gzip.open(path) as file:
            raw = file.read(MOST_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise _damaged(path, "it is no gzip file, or is damaged") from None
    except OSError:
        raise absent(path) from None
    if raw[:3] != _BYTES or len(raw) < 4:
        raise _damaged(path, "it is no idx file of bytes")
    start = 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    if len(raw) != start + math.prod(shape):
        raise _damaged(path, "its length is not what its header says")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _damaged(path: Path, why: str) -> Refusal:
    return Refusal(Code.DATA_INVALID, f"{path} not read", why, "Fetch the file again")

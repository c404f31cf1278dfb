"""Small images as PNG inside the page: no file, no network, the same bytes for the same pixels."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

_COLOURS = {1: 0, 3: 2}  # channels to the colour type of PNG: grey, or red, green and blue


def picture(title: str, pixels: Sequence[float], shape: Sequence[int]) -> Markup:
    """An <img> of pixels in [0, 1], row by row, channel after channel; of other than 3 channels the first alone."""
    channels, height, width = shape
    image = np.asarray(pixels, np.float64).reshape(channels, height, width)[: 3 if channels == 3 else 1]
    levels = np.rint(255 * image.clip(0.0, 1.0)).astype(np.uint8).transpose(1, 2, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in levels)
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[levels.shape[2]], 0, 0, 0)
    chunks = (_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(rows, 9)), _chunk(b"IEND", b""))
    data = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"".join(chunks)).decode("ascii")
    return Markup('<img class="pixels" alt="{}" src="data:image/png;base64,{}">').format(title, data)


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

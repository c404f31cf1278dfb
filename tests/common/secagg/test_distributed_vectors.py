"""Vectors of encoding, rotation, rounding and noise that any other implementation must meet (vectors/distributed.json).

Randomness is spelt out: a stream is SHAKE-128 of the given bytes, read as little-endian 64-bit words, in order.
"""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.linalg import hadamard

from common.privacy.distributed import SiteMechanism
from common.privacy.renyi import ORDERS
from common.secagg import RangeCodec, discrete, pack, skellam
from common.secagg.distributed import DistributedCodec
from common.secagg.masks import BITS
from common.secagg.rotation import Rotation
from common.secagg.rounding import round_within, rounded_norm, stochastic_round

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "distributed.json").read_text())


class Stream:
    """The words of SHAKE-128 of `seed`, from the first to the last."""

    kind = "replay"

    def __init__(self, seed: str):
        self._all, self._read = np.frombuffer(hashlib.shake_128(bytes.fromhex(seed)).digest(1 << 20), "<u8"), 0

    def bytes(self, count: int) -> bytes:
        return self.words(-(-count // 8)).tobytes()[:count]

    def words(self, count: int) -> np.ndarray:
        self._read += count
        return self._all[self._read - count : self._read].astype(np.uint64)


def rotation(given: dict[str, Any]) -> dict[str, Any]:
    """Signs of short and long vectors; a vector rotated, times the root of its block so that it stays whole."""
    seed, short, long = bytes.fromhex(given["seed"]), Rotation(len(given["vector"])), Rotation(given["dimension"])
    turned = short.turn(np.array(given["vector"], np.float64), seed) * math.sqrt(short.block)
    blocks = long.turn(np.arange(given["dimension"], dtype=np.float64), seed) * math.sqrt(long.block)
    return {
        "signs": short.signs(seed).tolist(),
        "turned": np.rint(turned).astype(int).tolist(),
        "lanes_of_dimension": long.lanes,
        "first_signs_of_dimension": long.signs(seed)[:32].tolist(),
        "first_lanes_of_dimension": np.rint(blocks[:6]).astype(int).tolist(),
    }


def rounding(given: dict[str, Any]) -> dict[str, Any]:
    """Values rounded with a fixed stream, freely and within a norm; bounds on rounded norms."""
    values = np.array(given["values"])
    streams = {norm: Stream(given["stream"]) for norm in given["norms"]}
    within = {norm: round_within(values, float(norm), stream).tolist() for norm, stream in streams.items()}
    return {
        "rounded": stochastic_round(values, Stream(given["stream"])).tolist(),
        "within": within,
        "words_read": {norm: stream._read for norm, stream in streams.items()},
        "rounded_norm": [rounded_norm(norm, lanes) for norm, lanes in given["rounded_norms_of"]],
    }


def thresholds(given: dict[str, Any]) -> dict[str, Any]:
    """floor(2^128 · P(X <= k)) for k from the least value on, by distribution; and draws from a fixed stream."""
    sigma = given["sigma"]
    tables = {"discrete-gaussian": discrete.plan(sigma).fine, "skellam": skellam._table(Fraction(sigma) ** 2)}
    return {
        name: {
            "least": table.least,
            "thresholds": [
                f"{(int(high) << 64) + int(low):032x}" for high, low in zip(table.high, table.low, strict=True)
            ][:-1],
            "draws": table.draw(given["draws"], Stream(given["stream"])).tolist(),
        }
        for name, table in tables.items()
    }


def range_codec(given: dict[str, Any]) -> dict[str, str]:
    """Packed bytes of one weighted vector with its metric, by width; not masked."""
    packed = {}
    for bits in BITS:
        codec = RangeCodec(
            dimension=len(given["vector"]),
            bits=bits,
            sites_max=given["sites_max"],
            bound=given["bound"],
            weight_cap=given["weight_cap"],
            metrics=1,
        )
        encoded = codec.encode(
            np.array(given["vector"]), Stream(given["stream"]), records=given["records"], metrics=(given["metric"],)
        )
        packed[str(bits)] = pack(codec.ring, encoded.lanes).hex()
    return packed


def distributed_codec(given: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Packed bytes of one clipped, rotated, rounded and noised vector, by distribution and width; not masked."""
    packed: dict[str, dict[str, str]] = {}
    for noise in ("discrete-gaussian", "skellam"):
        packed[noise] = {}
        for bits in BITS:
            codec = DistributedCodec(bits=bits, noise=noise, **given["codec"])
            encoded = codec.encode(
                np.array(given["vector"]),
                bytes.fromhex(given["seed"]),
                Stream(given["stream"]),
                weight=given["weight"],
                metrics=tuple(given["metrics"]),
            )
            packed[noise][str(bits)] = pack(codec.ring, encoded.lanes).hex()
    return packed


def accounting(given: dict[str, Any]) -> dict[str, Any]:
    """Scale, deviation, rounded norm and Rényi divergences of one release, by distribution."""
    found = {}
    for noise in ("discrete-gaussian", "skellam"):
        mechanism = SiteMechanism(noise=noise, **given["mechanism"])
        curve = dict(zip(ORDERS, mechanism.curve().tolist(), strict=True))
        found[noise] = {
            "scale": mechanism.scale,
            "sigma": mechanism.codec.sigma,
            "norm": mechanism.codec.norm,
            "divergences": [curve[order] for order in given["orders"]],
            "epsilon": mechanism.epsilon(given["releases"], given["delta"]),
        }
    return found


PARTS = {
    "rotation": rotation,
    "rounding": rounding,
    "thresholds": thresholds,
    "range_codec": range_codec,
    "distributed_codec": distributed_codec,
    "accounting": accounting,
}


def approximate(value: Any) -> Any:
    """The same tree, in which floats may differ in the last digits."""
    if isinstance(value, dict):
        return {name: approximate(each) for name, each in value.items()}
    if isinstance(value, list):
        return [approximate(each) for each in value]
    return pytest.approx(value, rel=1e-12) if isinstance(value, float) else value


@pytest.mark.parametrize("part", PARTS)
def test_computed_values_equal_the_vectors(part):
    assert PARTS[part](VECTORS[part]["given"]) == approximate(VECTORS[part]["expected"])


def test_the_rotation_of_the_vectors_is_signs_and_a_hadamard_matrix():
    given, expected = (VECTORS["rotation"][side] for side in ("given", "expected"))
    label = b"hushfed/rotation/v1\0" + bytes.fromhex(given["seed"])
    lanes = len(expected["signs"])
    stream = hashlib.shake_128(label + lanes.to_bytes(8, "little")).digest(1)
    assert expected["signs"] == [-1 if stream[0] >> bit & 1 else 1 for bit in range(lanes)]
    padded = given["vector"] + [0] * (lanes - len(given["vector"]))
    assert expected["turned"] == (hadamard(lanes) @ (np.array(padded) * expected["signs"])).tolist()


def test_the_rounding_of_the_vectors_is_floor_of_value_and_stream():
    given, expected = (VECTORS["rounding"][side] for side in ("given", "expected"))
    parts = np.frombuffer(hashlib.shake_128(bytes.fromhex(given["stream"])).digest(64), "<u2").tolist()
    plain = [math.floor(Fraction(x) + Fraction(2 * r + 1, 2**17)) for x, r in zip(given["values"], parts, strict=False)]
    assert expected["rounded"] == plain


@pytest.mark.parametrize("noise", ["discrete-gaussian", "skellam"])
def test_the_thresholds_of_the_vectors_are_the_distribution_function(noise):
    table, k = VECTORS["thresholds"]["expected"][noise], np.arange(-60, 61)
    weights = np.exp(-(k**2) / 18) if noise == "discrete-gaussian" else stats.skellam.pmf(k, 4.5, 4.5)
    reached = dict(zip(k.tolist(), np.cumsum(weights / weights.sum()).tolist(), strict=True))
    for place, threshold in enumerate(table["thresholds"]):
        assert int(threshold, 16) / 2**128 == pytest.approx(reached[table["least"] + place], abs=1e-13)

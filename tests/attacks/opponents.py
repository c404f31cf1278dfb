"""What attackers have in hand: statistics, and Flower's SecAgg+ with whatever its server can do to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from flwr.common import bytes_to_ndarray
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.common.secure_aggregation.quantization import dequantize
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, RECORD_KEY_STATE, Key
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.secagg import IntegerCodec, reduce, unpack
from common.secagg.wire import MaskedReport, MaskTotal
from simulations.bench.flower_round import FlowerSite, Relay

WIDE = IntegerCodec(dimension=20_000, sites_max=16, bits=24)
FIRST = 100  # node of Flower's first site
UNLIKELY = 400  # chi-square with 255 degrees of freedom: beyond it with a probability below 1e-7
NEAR = 5e-4  # more than Flower's rounding of ten updates of weight 100 can add up to; updates are a hundred times that
CLIP, TARGET_RANGE, MODULUS = 8.0, 2**22, 2**32  # what Flower's workflow has if nobody sets it


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def chi_square(lanes: NDArray[np.unsignedinteger], bits: int = WIDE.bits) -> float:
    """Of the upper eight bits of each value lane against the uniform distribution."""
    observed = np.bincount(lanes[: WIDE.dimension] >> (bits - 8), minlength=256)
    return float(((observed - observed.mean()) ** 2 / observed.mean()).sum())


def combination(parts: Mapping[int, int], bodies: Sequence[MaskedReport | MaskTotal]) -> NDArray[np.uint32]:
    """Σ coefficient · body over the ring of `WIDE`: all that a coordinator can do with what it has."""
    lanes = WIDE.ring.zeros()
    for place, times in parts.items():
        lanes += unpack(WIDE.ring, bodies[place].body) * np.uint32(times % 2**32)
    return reduce(WIDE.ring, lanes)


# Flower


def flower_sites(vectors: NDArray[np.floating], examples: Sequence[int] | None = None) -> dict[int, FlowerSite]:
    """Sites that each return their row, whatever they are sent."""
    weights = examples or [100] * len(vectors)
    return {
        FIRST + place: FlowerSite(FIRST + place, lambda _, row=row: row, weights[place])
        for place, row in enumerate(vectors.astype(np.float32))
    }


def updates(count: int, dimension: int = 50) -> NDArray[np.floating]:
    return np.random.default_rng(7).normal(0, 0.05, (count, dimension)).astype(np.float32)


def state_of(site: FlowerSite) -> Mapping[str, object]:
    """What Flower keeps of a site in its context."""
    return site.context.state.config_records[RECORD_KEY_STATE]


def masked_vector(relay: Relay, node: int) -> list[NDArray[np.integer]]:
    """What the server received: Flower's weight, then the update, masked."""
    record = relay.replies["collect_masked_vectors"][node].config_records[RECORD_KEY_CONFIGS]
    return [bytes_to_ndarray(part) for part in record[Key.MASKED_PARAMETERS]]


def without_masks(
    masked: list[NDArray[np.integer]], seeds: Sequence[bytes], pairs: Mapping[bytes, int]
) -> list[NDArray[np.integer]]:
    """Take away private masks by their seeds, and pair masks by their shared keys (+1 added, -1 subtracted)."""
    shapes = [part.shape for part in masked]
    masks = [(seed, 1) for seed in seeds] + list(pairs.items())
    left = masked
    for seed, sign in masks:
        left = [part - sign * mask for part, mask in zip(left, pseudo_rand_gen(seed, MODULUS, shapes), strict=True)]
    return [np.mod(part, MODULUS) for part in left]


def pair_key(private: bytes, public: bytes) -> bytes:
    return generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(public))


def update_of(unmasked: list[NDArray[np.integer]], examples: int) -> NDArray[np.floating]:
    """One site's update from its own unmasked vector."""
    weight = round(examples / 1000 * TARGET_RANGE) / TARGET_RANGE
    return dequantize(unmasked[1:], CLIP, TARGET_RANGE)[0] / weight


def shares_for(relay: Relay, owner: int, position: int = 0) -> list[bytes]:
    """Shares of `owner` in all answers to the last question; the `position`-th of each, if a site gave several."""
    found = []
    for reply in relay.replies["unmask"].values():
        record = reply.config_records[RECORD_KEY_CONFIGS]
        both = zip(record[Key.NODE_ID_LIST], record[Key.SHARE_LIST], strict=True)
        found.append([share for node, share in both if node == owner][position])
    return found

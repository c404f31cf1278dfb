"""Secure aggregation at 10^6 parameters: vectors and noise on their own, then `hushfed bench secagg` beside Flower."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np

from common.console import main
from common.randomness import SystemEntropy
from common.secagg import IntegerCodec, RangeCodec, pack, unpack
from common.secagg.discrete import discrete_gaussian, plan
from simulations.bench.rows import least

SIZE = 10**6


def show(what: str, act: Callable[[], Any], repeats: int = 10, note: str = "") -> None:
    """Least CPU milliseconds of several runs."""
    sys.stdout.write(f"{what:<50}{1e3 * least(act, repeats):9.2f} ms  {note}\n")


def vectors() -> None:
    """Encoding by size of the cohort, packing by width."""
    vector, entropy = np.random.default_rng(0).uniform(-1, 1, SIZE).astype(np.float32), SystemEntropy()
    for sites in (10, 100, 1000):
        codec = RangeCodec(dimension=SIZE, bits=24, sites_max=sites, bound=1.0)
        show(f"encode, b = 24, up to {sites} sites", lambda codec=codec: codec.encode(vector, entropy))
    for bits in (16, 20, 24, 28, 32):
        ring = IntegerCodec(dimension=SIZE, sites_max=2, bits=bits).ring
        lanes = ring.zeros()
        body = pack(ring, lanes)
        show(f"pack, b = {bits}", lambda ring=ring, lanes=lanes: pack(ring, lanes))
        show(f"unpack, b = {bits}", lambda ring=ring, body=body: unpack(ring, body))


def noise() -> None:
    """Discrete Gaussians by scale."""
    entropy = SystemEntropy()
    for sigma in (3.0, 300.0, 3e4, 1e5, 1e6, 1e7):
        start = time.process_time()
        plan(sigma)
        built = f"tables made once in {1e3 * (time.process_time() - start):.0f} ms"
        show(
            f"10^6 discrete Gaussians, sigma = {sigma:g}", lambda s=sigma: discrete_gaussian(s, SIZE, entropy), 4, built
        )


if __name__ == "__main__":
    vectors()
    noise()
    main(["bench", "secagg", "--peer", "flower", *sys.argv[1:]])

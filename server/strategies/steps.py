"""One update to the next model: descent, momentum, and the adaptive steps of Reddi et al. 2021, algorithm 2."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from server.strategies.strategy import Flat64, Memory, Step


def descend(rate: float) -> Step:
    """change = rate * update. FedAvg with rate 1, FedSGD with the learning rate; McMahan et al. 2017."""
    return Step(lambda _: {}, lambda memory, update: (memory, rate * update))


def momentum(rate: float, keep: float) -> Step:
    """v = keep * v + update; change = rate * v. FedAvgM; Hsu, Qi and Brown 2019."""

    def apply(memory: Memory, update: Flat64) -> tuple[Memory, Flat64]:
        velocity = keep * memory["velocity"] + update
        return {"velocity": velocity}, rate * velocity

    return Step(lambda size: {"velocity": np.zeros(size)}, apply)


def adam(rate: float, *, b1: float, b2: float, floor: float) -> Step:
    """FedAdam: v = b2 v + (1 - b2) u^2."""
    return _adaptive(rate, b1, floor, lambda v, square: b2 * v + (1.0 - b2) * square)


def yogi(rate: float, *, b1: float, b2: float, floor: float) -> Step:
    """FedYogi: v moves towards u^2 by a step that does not grow with their distance."""
    return _adaptive(rate, b1, floor, lambda v, square: v - (1.0 - b2) * square * np.sign(v - square))


def adagrad(rate: float, *, b1: float, floor: float) -> Step:
    """FedAdagrad: v is the sum of all squares."""
    return _adaptive(rate, b1, floor, lambda v, square: v + square)


def _adaptive(rate: float, b1: float, floor: float, grow: Callable[[Flat64, Flat64], Flat64]) -> Step:
    """m = b1 m + (1 - b1) u, v by `grow`, change = rate * m / (sqrt(v) + floor).

    As in the paper v starts at floor^2 and nothing is corrected for bias.
    """

    def init(size: int) -> Memory:
        return {"mean": np.zeros(size), "square": np.full(size, floor**2)}

    def apply(memory: Memory, update: Flat64) -> tuple[Memory, Flat64]:
        mean = b1 * memory["mean"] + (1.0 - b1) * update
        square = grow(memory["square"], update * update)
        return {"mean": mean, "square": square}, rate * mean / (np.sqrt(square) + floor)

    return Step(init, apply)

"""The same round by Flower's SecAgg+: played whole where it is cheap enough, otherwise put together from its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from simulations.bench import flower_parts as parts
from simulations.bench.flower_round import FlowerSite, Relay, Vector, play
from simulations.bench.rows import Case, Row, forget_peak, least, peak_mb

Step = Callable[..., None]
MAX_WEIGHT, EXAMPLES = 1000.0, 100
SPARSE, WIDE, WIDE_FROM = 33, 101, 300
NEAR = 16.0 / 2**22 / (EXAMPLES / MAX_WEIGHT) * 1.01  # one rounding of one site


@dataclass(frozen=True)
class Graph:
    """k, sites that each shares masks and key shares with, itself included; t, shares that rebuild a secret."""

    neighbours: int
    threshold: int

    @classmethod
    def usual(cls, n: int) -> Graph:
        """All of up to 33 sites, else 33, from 300 sites on 101, with a threshold of just over a half.

        Odd, as Flower's workflow needs; the fewest for which one bad site in ten is survived (Bell et al. 2020).
        """
        k = WIDE if n >= WIDE_FROM else min(n, SPARSE)
        return cls(k, max(2, min(k // 2 + 1, k - 1)))


def measure(case: Case, budget: float, step: Step) -> list[Row]:
    """Rows of one site, which is always measured, and of the server.

    budget  CPU seconds; a round that would take more is not played: its server row is computed from measured parts
    Errors: ValueError if Flower stopped the round or its mean is wrong.
    """
    graph = Graph.usual(case.n)
    if _predicted(case, graph) <= budget:
        return _played(case, graph, step)
    repeats = 3 if case.d * graph.neighbours <= 4 * 10**7 else 1
    sites = [parts.lone_site(case.d, graph.neighbours, graph.threshold) for _ in range(repeats)]
    step(case.reporting)
    seconds = _server_seconds(case, graph)
    sent = sites[0][1]
    return [
        _row(case, graph, "site", min(each[0] for each in sites), sent, repeats=repeats),
        _row(case, graph, "server", seconds, sent * case.reporting, computed=True),
    ]


def _predicted(case: Case, graph: Graph) -> float:
    """CPU seconds of a whole round, roughly: a mask 5 ns a value; shares by chunks of 16 bytes, of which a seed has 3,
    a private key 20; 10 µs to make one for each share and coefficient, 40 µs to join one with another.
    """
    k, mask = graph.neighbours, case.d * 5e-9
    site = k * mask + 23e-5 * k * graph.threshold
    server = case.n * (2 * mask + 3 * 4e-5 * k**2) + len(case.lost) * (k * mask + 20 * 4e-5 * k**2)
    return case.n * site + server


def _played(case: Case, graph: Graph, step: Step) -> list[Row]:
    def train(place: int) -> Callable[[Vector], Vector]:
        return lambda _: _vector(case.d, place)

    sites = {place + 1: FlowerSite(place + 1, train(place), EXAMPLES) for place in range(case.n)}
    relay = Relay(sites, lost={"collect_masked_vectors": {place + 1 for place in case.lost}})
    forget_peak()
    outcome = play(relay, graph.neighbours, graph.threshold)
    peak = peak_mb()
    kept = [place for place in range(case.n) if place not in case.lost]
    step(len(kept))
    true = sum(_vector(case.d, place).astype(np.float64) for place in kept) / len(kept)
    if outcome.mean is None or np.abs(outcome.mean - true).max() > NEAR:
        raise ValueError(f"Flower's round stopped in {outcome.stopped}, or its mean is wrong")
    reporting = [sites[place + 1] for place in kept]
    seconds = min(sum(site.seconds.values()) for site in reporting)
    sent = max(sum(site.sent.values()) for site in reporting)
    total = sum(sum(site.sent.values()) for site in sites.values())
    return [
        _row(case, graph, "site", seconds, sent, repeats=len(reporting)),
        _row(case, graph, "server", outcome.seconds, total, peak=peak),
    ]


def _server_seconds(case: Case, graph: Graph) -> float:
    """What the server does, by its parts: add each report, rebuild a secret of each site, take masks away."""
    k, shares = graph.neighbours, max(graph.threshold, round(graph.neighbours * (1 - case.dropout)))
    mask = least(lambda: parts.take_mask_away(case.d), 3)
    seed = parts.joining(32, graph.threshold, k, shares)
    private = parts.joining(parts.PRIVATE_KEY, graph.threshold, k, shares) if case.lost else 0.0
    living = case.reporting * (parts.adding(case.d) + seed + mask)
    return living + len(case.lost) * (private + (k - 1) * (mask + parts.agreeing()))


def _row(
    case: Case,
    graph: Graph,
    role: str,
    seconds: float,
    sent: int,
    *,
    repeats: int = 1,
    computed: bool = False,
    peak: float | None = None,
) -> Row:
    return Row(
        peer="flower",
        role=role,  # type: ignore[arg-type]  # "site" or "server"
        d=case.d,
        n=case.n,
        m=graph.neighbours,
        dropout=case.dropout,
        cpu_seconds=seconds,
        bytes_up=sent,
        repeats=repeats,
        computed=computed,
        peak_mb=peak,
        threshold=graph.threshold,
    )


def _vector(d: int, place: int) -> Vector:
    return np.random.default_rng(place).uniform(-1.0, 1.0, d).astype(np.float32)

"""Strategies: how the coordinator turns updates into the next model."""

from __future__ import annotations

from common.listing import listing
from server.strategies.catalogue import STRATEGIES

app = listing(STRATEGIES, "Strategies of the coordinator.")

"""Optimizers: how the sites step."""

from __future__ import annotations

from common.listing import listing
from common.learning.optimizers import OPTIMIZERS

app = listing(OPTIMIZERS, "Optimizers of the sites.")

"""Optimizers: how the sites step."""

from __future__ import annotations

from common.learning.optimizers import OPTIMIZERS
from common.listing import listing

app = listing(OPTIMIZERS, "Optimizers of the sites.")

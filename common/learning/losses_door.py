"""Losses: what the sites minimise, record by record."""

from __future__ import annotations

from common.learning.losses import LOSSES
from common.listing import listing

app = listing(LOSSES, "Losses of single records.")

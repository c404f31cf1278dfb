"""Losses: what the sites minimise, record by record."""

from __future__ import annotations

from common.listing import listing
from common.learning.losses import LOSSES

app = listing(LOSSES, "Losses of single records.")

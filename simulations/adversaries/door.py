"""Adversaries: what lying sites can be told to do in a simulation."""

from __future__ import annotations

from common.listing import listing
from simulations.adversaries.catalogue import ON_RECORDS, ON_UPDATES

app = listing({**ON_RECORDS, **ON_UPDATES}, "Attacks of lying sites, on records and on updates.")

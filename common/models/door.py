"""Models: the architectures that can be trained."""

from __future__ import annotations

from common.listing import listing
from common.models.catalogue import MODELS

app = listing(MODELS, "Architectures that can be trained.")

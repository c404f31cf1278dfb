"""The names of the clipping engines: of their own file, because reading site.toml must not import Opacus."""

from __future__ import annotations

from typing import Literal

EngineName = Literal["auto", "bk", "vmap", "opacus", "opacus-hooks", "opacus-functorch", "reference"]

"""A coordinator that asks clinic-c in every round, whether or not it is its turn. Everything else is the real one."""

from __future__ import annotations

from server import rounds
from server.app import app
from server.site_level import due

__all__ = ["app"]

_HASTY = 3

rounds.due = lambda work, number: (due(work, number) or frozenset()) | {_HASTY}  # type: ignore[attr-defined]

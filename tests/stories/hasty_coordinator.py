"""A coordinator that asks clinic-c in every round, whether or not it is its turn. Everything else is the real one."""

from __future__ import annotations

from common.work import Work
from server import rounds
from server.app import app
from server.site_level import due

__all__ = ["app"]

_HASTY = 3


def _hasty(work: Work, number: int) -> frozenset[int] | None:
    turn = due(work, number)
    return None if turn is None else turn | {_HASTY}


rounds.due = _hasty  # type: ignore[attr-defined]

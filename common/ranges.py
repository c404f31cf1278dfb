"""Checks of settings whose range includes one of its ends."""

from __future__ import annotations

import math

from common.errors import Code, Refusal


def not_negative(value: float, name: str) -> None:
    """Refuse `value` unless it is finite and at least 0."""
    if isinstance(value, bool) or not (math.isfinite(value) and value >= 0.0):
        raise Refusal(Code.CONFIG_INVALID, f"{name} = {value}", "it must be finite and not negative", "Correct it")


def share(value: float, name: str) -> None:
    """Refuse `value` unless it lies in [0, 1)."""
    if isinstance(value, bool) or not 0.0 <= value < 1.0:
        raise Refusal(Code.CONFIG_INVALID, f"{name} = {value}", "it must be at least 0 and below 1", "Correct it")

"""How numbers are written on the page: rounded for the reader, exact for machines, a dash where undefined."""

from __future__ import annotations

import json
import math
from decimal import ROUND_CEILING, Context, Decimal

from markupsafe import Markup

DASH = "—"
THIN = "\u202f"  # narrow space that does not break


def number(value: float | None, digits: int = 3) -> Markup:
    """A plain number with at most `digits` decimals."""
    return _data(value, DASH if value is None else f"{value:.{digits}f}")


def percent(value: float | None, digits: int = 1) -> Markup:
    """A share as per cent; the machine-readable value stays a share."""
    return _data(value, DASH if value is None else f"{100 * value:.{digits}f}{THIN}%")


def count(value: float | None) -> Markup:
    """A whole number in groups of three digits."""
    return _data(value, DASH if value is None else f"{value:,.0f}".replace(",", THIN))


def epsilon(value: float | None) -> Markup:
    """An epsilon, rounded up, because rounding down would claim too much; without noise it is infinite."""
    return _data(value, "∞" if value is None else f"{_up(value, 2):.2f}")


def small(value: float | None) -> Markup:
    """A probability such as delta, of two digits and rounded up: 1e-05 as 0.00001 would be unreadable."""
    return _data(value, DASH if value is None else _power(value))


def share(value: float | None, name: str) -> Markup:
    """A metric by its kind: differences in per cent, ratios as they are."""
    return number(value, 2) if name.endswith("_ratio") else percent(value)


def figure(value: float | None, name: str) -> Markup:
    """A figure of an attack by its name: rates and areas in per cent, all else with two decimals."""
    return percent(value, 2) if name.rpartition("_")[2] in {"percent", "auc"} else number(value, 2)


def _power(value: float) -> str:
    exact = Context(prec=2, rounding=ROUND_CEILING).create_decimal(Decimal(f"{value:.10g}"))
    return f"{float(exact):.1e}".replace(".0e", "e").replace("e-0", "e-")


def _up(value: float, digits: int) -> float:
    """`value` rounded up, except for what float arithmetic added far behind the point."""
    scale = float(10**digits)
    return math.ceil(round(value * scale, 6)) / scale


def _data(value: float | None, shown: str) -> Markup:
    if value is None:
        return Markup.escape(shown)
    return Markup('<data value="{}">{}</data>').format(json.dumps(value), shown)

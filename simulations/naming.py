"""What the sites of a simulated world are called."""

from __future__ import annotations

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def site_name(names: str, place: int, count: int) -> str:
    """clinic-a, clinic-b, … by place from 0 on; numbers where the alphabet does not suffice for all."""
    return f"{names}-{_LETTERS[place] if count <= len(_LETTERS) else place + 1}"


def site_names(names: str, count: int) -> tuple[str, ...]:
    """The names of so many sites."""
    return tuple(site_name(names, place, count) for place in range(count))

"""Releases of the packages that a number about privacy rests on."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("hushfed", "flwr", "torch", "opacus", "dp-accounting", "cryptography", "numpy")


@cache
def _found() -> tuple[tuple[str, str], ...]:
    pairs = []
    for name in PACKAGES:
        try:
            pairs.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return tuple(pairs)


def versions() -> dict[str, str]:
    """Installed releases by package; a package that is not installed is left out."""
    return dict(_found())

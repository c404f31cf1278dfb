"""Which code makes a result: a digest over every module that a run may import, and the libraries beneath it."""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from common.versions import versions

ROOT = Path(__file__).resolve().parents[2]
WINGS = frozenset({"server", "client", "common", "simulations", "deploy"})
PLAYER = "simulations.study.player"
_BESIDE = ("scipy", "scikit-learn")  # statistics and embedded data


@cache
def code_digest(entry: str = PLAYER, root: Path = ROOT) -> str:
    """SHA-256, hex, over the sources of `entry` and of every module of this project that it leads to, and libraries.

    Imports inside functions count too, and so does the release of Python, torch and what else decides the bits of a
    result: a cell made by other code is another cell. Reading it costs no import.
    """
    digest = hashlib.sha256()
    for name in sorted(modules(entry, root)):
        digest.update(f"{name}\0".encode() + hashlib.sha256(_place(name, root).read_bytes()).digest())
    for name, release in sorted({**versions(), **_releases()}.items()):
        digest.update(f"{name}=={release}\0".encode())
    return digest.hexdigest()


def modules(entry: str, root: Path = ROOT) -> frozenset[str]:
    """`entry` and all modules of the project that it imports, directly or by others, with the packages they lie in."""
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        if name in found or not _exists(name, root):
            continue
        found.add(name)
        waiting += _imports(ast.parse(_place(name, root).read_bytes()))
        waiting += [name.rpartition(".")[0]] if "." in name else []
    return frozenset(found)


def _imports(tree: ast.Module) -> Iterator[str]:
    """Dotted names that may be modules of this project; a name out of a module may be one itself."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.split(".")[0] in WINGS)


def _place(name: str, root: Path) -> Path:
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _exists(name: str, root: Path) -> bool:
    return bool(name) and _place(name, root).is_file()


def _releases() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in _BESIDE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

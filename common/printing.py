"""How a result is laid out for a person: names and values, tables for lists of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


def show(result: Mapping[str, Any], page: Console) -> None:
    """Print `result` on `page`: nested mappings as dotted names, lists of mappings as tables."""
    for name, value in _flat(result):
        if _is_table(value):
            page.print(_table(name, value))
        else:
            page.print(Text(f"{name:<18} ", style="dim") + Text(_shown(value)))


def _is_table(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(row, dict) for row in value)


def _flat(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names, in their order."""
    for name, value in result.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(Text(_shown(row.get(name))) for name in names))
    return table


def _shown(value: object) -> str:
    """A value for a person: four significant digits, a dash for what is undefined."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value)
    return str(value)

"""How a result is laid out for a person: names and values, tables for lists of rows, paragraphs for sentences."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

DIGITS = 4  # significant ones of a number for a person
NAME, WIDEST = 18, 32  # columns of a name, at least and at most
# A figure of privacy is rounded to the side on which it promises less, whatever stands around it.
UP = frozenset({"epsilon", "recomputed", "training", "holdout", "train", "reported", "spent", "sigma", "delta"})
DOWN = frozenset({"left", "noise_multiplier", "counts_noise_multiplier"})
TIMES = frozenset({"since", "joined", "contact", "when"})  # seconds since 1970
UNITS = {"seconds": " s", "seconds_per_round": " s", "bytes": " bytes"}


def show(result: Mapping[str, Any], page: Console) -> None:
    """Print `result` on `page`: nested mappings as dotted names, lists of mappings as tables, sentences wrapped.

    Guarantee: no character of a value moves the cursor, ends a line or hides another (`clean`).
    """
    room = max([NAME, *(len(name) for name, _ in _flat(result) if len(name) <= WIDEST)])
    for name, value in _flat(result):
        if _is_table(value):
            _show_table(name, value, page)
        elif _is_prose(value, page.width):
            page.print(Text(clean(name), style="dim"))
            for part in value if isinstance(value, (list, tuple)) else [value]:
                page.print(Text(_wrapped(near(clean(part)), page.width)))
        else:
            shown = _shown(name, value)
            beside = " " if len(shown) < page.width - room else "\n  "  # a long path has a line of its own, unbroken
            page.print(Text(f"{clean(name):<{room}}{beside}", style="dim") + Text(shown))


def near(text: str) -> str:
    """`text` with paths as a person types them here: from the folder they are in, or from their home."""
    for find, short in ((Path.cwd, ""), (Path.home, "~/")):
        with suppress(OSError, RuntimeError):  # a folder that was deleted, a user without a home
            folder = find()
            if folder == folder.parent:
                continue
            text = re.sub(rf"(?<![\w./~-]){re.escape(str(folder))}/(?=\S)", short, text)
    return text


def hanging(label: str, text: str, width: int) -> str:
    """`text` after `label`, in lines of at most `width` below each other; a long word has a line of its own."""
    indent = " " * len(label)
    lines = textwrap.wrap(text, max(20, width - len(label)), break_long_words=False, break_on_hyphens=False)
    return label + f"\n{indent}".join(lines or [""])


def clean(text: str) -> str:
    r"""`text` with every character that does not print as its escape: ESC is \x1b, a line end \n, U+202E \u202e.

    Names and cells come from files of others; printed as they are they could erase or forge lines of a terminal.
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in text)


def _is_table(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _is_prose(value: object, width: int) -> bool:
    """Whether it is a sentence, or texts, that do not fit beside their name."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    whole = "; ".join(texts)
    return len(texts) == len(parts) and len(whole) > width - NAME - 1 and whole.count(" ") > 3


def _wrapped(text: str, width: int) -> str:
    """Indented lines; a paragraph of several is followed by an empty one."""
    lines = textwrap.wrap(text, max(20, width - 2), break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(f"  {line}" for line in lines) + ("\n" if len(lines) > 1 else "")


def _flat(result: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as dotted names, in their order."""
    for name, value in result.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _show_table(title: str, rows: Sequence[Mapping[str, Any]], page: Console) -> None:
    """A table if no word of it must be broken on this page; otherwise each row as names and values."""
    flat = [dict(_flat(row)) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    cells = [[_shown(name, row.get(name)) for name in names] for row in flat]
    heads = [clean(name).replace("_", " ").replace(".", ". ") for name in names]
    widths = [
        max(len(word) for text in column for word in text.split() or [""]) for column in zip(heads, *cells, strict=True)
    ]
    if sum(widths) + 3 * len(names) + 1 > page.width:
        page.print(Text(clean(title), style="bold"))
        for row in cells:
            for name, cell in zip(names, row, strict=True):
                page.print(Text(f"  {clean(name):<{NAME}} ", style="dim") + Text(cell))
            page.print()
        return
    table = Table(title=Text(clean(title)), title_justify="left")
    for name, head, width in zip(names, heads, widths, strict=True):
        numeric = not any(isinstance(row.get(name), (bool, str, list, tuple)) for row in flat)
        table.add_column(Text(head), min_width=width, justify="right" if numeric else "left")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    page.print(table, soft_wrap=False)


def _shown(name: str, value: object) -> str:
    """A value for a person: four significant digits, its unit, a dash for what is undefined."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        parts = name.split(".")
        if TIMES & set(parts) and value > 0:
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        unit = next((UNITS[part] for part in parts if part in UNITS), "")
        return (_rounded(value, parts) if isinstance(value, float) else str(value)) + unit
    if isinstance(value, (list, tuple)):
        shown = [_shown(name, item) for item in value]
        return ("; " if any("," in item for item in shown) else ", ").join(shown)
    return near(clean(str(value)))


def _rounded(value: float, names: Sequence[str]) -> str:
    """Four significant digits; a figure of privacy never on the side that promises more (float noise apart)."""
    if not math.isfinite(value):
        return str(value)
    way = ROUND_CEILING if UP & set(names) else ROUND_FLOOR if DOWN & set(names) else ROUND_HALF_EVEN
    exact = Decimal(f"{value:.10g}")
    return f"{float(Context(prec=DIGITS, rounding=way).create_decimal(exact)):.{DIGITS}g}"

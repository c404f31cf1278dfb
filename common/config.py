"""TOML to a tree of frozen dataclasses, or a refusal; and the one canonical form of such a value."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import re
import sys
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from common.errors import Code, Refusal

T = TypeVar("T")
_SCALARS = frozenset({bool, int, float, str})  # exactly these: a member of an enum is none of them
_LARGEST = sys.float_info.max  # NaN and infinity are beyond it, and so is an integer that has no float


def load(kind: type[T], table: Mapping[str, Any], where: str = "") -> T:
    """The frozen dataclass `kind` with the settings of `table`.

    where  dotted place of the table in its file, for messages ("privacy")
    Errors: Refusal CONFIG_INVALID for an unknown name (naming the nearest known one), a missing one,
    a wrong type, or a value that is not finite. Nothing is coerced: `"3"` is not 3, 3 is not `true`.
    """
    _refuse_unknown(kind, table, where)
    try:
        return msgspec.convert(table, type=kind, strict=True)
    except msgspec.ValidationError as error:
        place = f"[{where}]" if where else kind.__name__
        if isinstance(error.__cause__, Refusal):
            raise error.__cause__ from None
        why = str(error).replace("`", "'") + _choices(kind, str(error))
        raise Refusal(Code.CONFIG_INVALID, f"{place} not read", why, "Correct the setting") from None


def read(kind: type[T], path: Path) -> T:
    """`load` from a TOML file. Errors: Refusal FILE_MISSING, CONFIG_INVALID naming the file."""
    table = read_table(path)
    with naming(path):
        return load(kind, table)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A refusal of a setting, raised inside, says that it stands in the file at `path`."""
    try:
        yield
    except Refusal as refusal:
        if refusal.code is not Code.CONFIG_INVALID:
            raise
        raise Refusal(refusal.code, f"{path}: {refusal.what}", refusal.why, refusal.do) from None


def read_table(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Errors: Refusal FILE_MISSING, CONFIG_INVALID with the place in the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise Refusal(Code.FILE_MISSING, f"{path} not read", "there is no such file", "Check the path") from None
    except PermissionError:
        raise Refusal(
            Code.FILE_MISSING, f"{path} not read", "this user may not read it", "Check owner and mode"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refusal(Code.CONFIG_INVALID, f"{path} not read", f"it is not TOML: {error}", "Correct the file") from None


def plain(value: Any) -> Any:
    """`value` as dicts, lists and scalars; `load(type(value), plain(value))` gives it back.

    Every setting is spelled out, also one that has its default, so that equal values have one form.
    """
    if value is None or type(value) in _SCALARS:
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return msgspec.to_builtins(value, str_keys=True)


def canonical(value: Any) -> bytes:
    """Canonical JSON of a dataclass or plain value: sorted keys, no spaces, ASCII.

    Errors: Refusal CONFIG_INVALID for a number that is not finite: it has no JSON form.
    """
    try:
        text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except ValueError:
        raise Refusal(
            Code.CONFIG_INVALID, "Value has no canonical form", "a number in it is not finite", "Use finite numbers"
        ) from None
    return text.encode("ascii")


def digest(value: Any) -> bytes:
    """SHA-256 of the canonical form."""
    return hashlib.sha256(canonical(value)).digest()


def finite(
    value: float,
    name: str,
    *,
    above: float = -math.inf,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
) -> None:
    """Refuse `value` unless it is finite and within the given ends. `bool` is no number."""
    number = not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST
    if number and above < value < below and at_least <= value <= at_most:
        return
    ends = {"above": above, "at least": at_least, "at most": at_most, "below": below}
    bounds = " and ".join(f"{word} {_exact(end)}" for word, end in ends.items() if math.isfinite(end))
    why, do = f"it must be {bounds or 'finite'}", "Correct it"
    if not number and not isinstance(value, bool):  # infinity is above every end: it must not be told to be
        why = "it is too large to be computed with" if isinstance(value, int) else "it is not a finite number"
        do = f"Give a number {bounds}" if bounds else "Give a finite number"
    raise Refusal(Code.CONFIG_INVALID, f"{name} = {value}", why, do)


def _exact(value: float) -> str:
    """`value` in few letters, or in as many as it takes."""
    return short if float(short := f"{value:g}") == value else str(value)


def one_of(value: str, name: str, known: typing.Collection[str]) -> None:
    """Refuse `value` unless it is one of the `known` names; the refusal names the nearest."""
    if value not in known:
        raise Refusal(Code.CONFIG_INVALID, f"{name} = {value!r}", _knows(value, known), "Correct the name")


def _knows(name: str, known: typing.Collection[str]) -> str:
    names = ", ".join(sorted(known))
    near = difflib.get_close_matches(name, list(known), 1)
    return f"the nearest is {near[0]!r}; it knows {names}" if near else f"it knows {names}"


def _choices(kind: Any, error: str) -> str:
    """What an enumerated setting may be, from the place that msgspec names: "... - at `$.leaf[0].kind`"."""
    *_, name = names = re.findall(r"[A-Za-z_]\w*", error.rpartition("$")[2]) or [""]
    if "Invalid enum value" not in error:
        return ""
    for part in names[:-1]:
        kind = _dataclass_of(typing.get_type_hints(_dataclass_of(kind) or object).get(part))
    hint = typing.get_type_hints(_dataclass_of(kind) or object).get(name)
    known = [str(value) for value in _literals(hint)]
    return f"; it knows {', '.join(known)}" if known else ""


def _literals(hint: Any) -> list[Any]:
    """The values of the Literal inside `hint`."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [value for part in typing.get_args(hint) for value in _literals(part)]


def _refuse_unknown(kind: Any, table: Any, where: str) -> None:
    """Walk `table` beside the fields of `kind`; msgspec alone would drop unknown names silently."""
    kind = _dataclass_of(kind)
    if kind is None or not isinstance(table, Mapping):
        return
    hints = _hints(kind)
    known = [field.name for field in dataclasses.fields(kind)]
    for name, value in table.items():
        if name not in known:
            place = f"[{where}]" if where else "The file"
            raise Refusal(
                Code.CONFIG_INVALID, f"{place} has no setting {name!r}", _knows(name, known), "Correct the name"
            )
        inner = f"{where}.{name}" if where else name
        for item in value if isinstance(value, list) else [value]:
            _refuse_unknown(hints[name], item, inner)


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, read once: its annotations are text."""
    return typing.get_type_hints(kind)


def _dataclass_of(hint: Any) -> Any:
    """The dataclass inside `hint` (itself, optional, or element of a tuple), or None."""
    if dataclasses.is_dataclass(hint):
        return hint
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple, list):
        return next((found for part in typing.get_args(hint) if (found := _dataclass_of(part))), None)
    return None

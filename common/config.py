"""TOML to a tree of frozen dataclasses, or a refusal; and the one canonical form of such a value."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import sys
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from common.errors import Code, Refusal

T = TypeVar("T")
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
        place = f"[{where}] of {kind.__name__}" if where else kind.__name__
        if isinstance(error.__cause__, Refusal):
            raise error.__cause__ from None
        raise Refusal(
            Code.CONFIG_INVALID, f"{place} not read", str(error).replace("`", "'"), "Correct the setting"
        ) from None


def read(kind: type[T], path: Path) -> T:
    """`load` from a TOML file. Errors: Refusal FILE_MISSING, CONFIG_INVALID."""
    return load(kind, read_table(path))


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


def finite(value: float, name: str, *, above: float = -math.inf, at_most: float = math.inf) -> None:
    """Refuse `value` unless above < value <= at_most and finite. `bool` is no number."""
    if isinstance(value, bool) or not -_LARGEST <= value <= _LARGEST or not above < value <= at_most:
        bounds = [f"above {above:g}"] * math.isfinite(above) + [f"at most {at_most:g}"] * math.isfinite(at_most)
        raise Refusal(
            Code.CONFIG_INVALID, f"{name} = {value}", f"it must be {' and '.join(bounds) or 'finite'}", "Correct it"
        )


def one_of(value: str, name: str, known: typing.Collection[str]) -> None:
    """Refuse `value` unless it is one of the `known` names; the refusal names the nearest."""
    if value not in known:
        raise Refusal(Code.CONFIG_INVALID, f"{name} = {value!r}", _knows(value, known), "Correct the name")


def _knows(name: str, known: typing.Collection[str]) -> str:
    names = ", ".join(sorted(known))
    near = difflib.get_close_matches(name, list(known), 1)
    return f"the nearest is {near[0]!r}; it knows {names}" if near else f"it knows {names}"


def _refuse_unknown(kind: Any, table: Any, where: str) -> None:
    """Walk `table` beside the fields of `kind`; msgspec alone would drop unknown names silently."""
    kind = _dataclass_of(kind)
    if kind is None or not isinstance(table, Mapping):
        return
    hints = typing.get_type_hints(kind)
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


def _dataclass_of(hint: Any) -> Any:
    """The dataclass inside `hint` (itself, optional, or element of a tuple), or None."""
    if dataclasses.is_dataclass(hint):
        return hint
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple, list):
        return next((found for part in typing.get_args(hint) if (found := _dataclass_of(part))), None)
    return None

"""Named things to choose from: what each is, which paper it is from, and how a job's settings make one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from common import config

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class Entry(Generic[Made]):
    """One line of a catalogue.

    paper     author and year of its source
    input     what it works on ("vector", "image", "any")
    settings  frozen dataclass of its settings, each with its meaning
    private   True where it keeps the guarantees of differential privacy; otherwise the reason why not
    make      settings -> the thing itself, perhaps with further arguments
    """

    name: str
    summary: str
    paper: str
    settings: type[Any]
    make: Callable[..., Made]
    input: str = "any"
    private: bool | str = True

    def read(self, settings: Mapping[str, Any]) -> Any:
        """`settings` as this entry's dataclass. Errors: Refusal CONFIG_INVALID naming the nearest setting."""
        return config.load(self.settings, dict(settings), f"{self.name} settings")


@dataclass(frozen=True, kw_only=True)
class NoSettings:
    """For entries that have nothing to set."""


Catalogue = Mapping[str, Entry[Made]]


def catalogue(*entries: Entry[Made]) -> Catalogue[Made]:
    """The entries by name, in the order in which they are listed."""
    return {entry.name: entry for entry in entries}


def find(known: Catalogue[Made], name: str, kind: str) -> Entry[Made]:
    """The entry called `name`. Errors: Refusal CONFIG_INVALID naming the nearest; `kind` says what was looked for."""
    config.one_of(name, kind, known.keys())
    return known[name]


def described(known: Catalogue[Any]) -> list[dict[str, Any]]:
    """The entries as every `list` command prints them."""
    shown = ("name", "summary", "paper", "input", "private")
    return [{key: getattr(entry, key) for key in shown} for entry in known.values()]

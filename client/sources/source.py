"""Where a site's records lie, and what a reader gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from common.data import Records
from common.errors import Code, Refusal


@dataclass(frozen=True, kw_only=True)
class Source:
    """The table [source] of site.toml.

    kind       name in the catalogue of sources
    path       the file; a relative one is taken from the folder of site.toml
    delimiter  between the cells of a table
    columns    names of the columns of a file without a header line
    missing    texts that mean "no value", beside the empty cell
    id         column that names the person, so that all rows of a person fall into the same part of the keyed
               split; without it a row is named by all its cells. Set by the site, not the job: were it, or the
               choice of columns, the coordinator's, a second job could move records between the parts
    """

    path: str
    kind: str = "table"
    delimiter: str = ","
    columns: tuple[str, ...] = ()
    missing: tuple[str, ...] = ("NA", "?")
    id: str = ""

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise Refusal(
                Code.CONFIG_INVALID, "delimiter", "it must be one character, no quote or line end", "Use , ; or a tab"
            )
        if len(set(self.columns)) != len(self.columns):
            raise Refusal(Code.CONFIG_INVALID, "columns", "a name occurs twice", "Give each column its own name")


@dataclass(frozen=True)
class Reading:
    """Records and what was done to them on the way. The counts are about private records: they stay at the site.

    clipped  values moved to the end of their public range, by column      imputed  absent values, by column
    """

    records: Records = field(repr=False)
    clipped: Mapping[str, int] = field(repr=False)
    imputed: Mapping[str, int] = field(repr=False)


def contents(path: Path) -> bytes:
    """The bytes of the file. Errors: Refusal FILE_MISSING."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise Refusal(Code.FILE_MISSING, f"{path} not read", "there is no such file", "Check the path") from None
    except PermissionError:
        raise Refusal(
            Code.FILE_MISSING, f"{path} not read", "this user may not read it", "Check owner and mode"
        ) from None


def invalid(what: str, why: str, do: str) -> Refusal:
    """Data that do not fit the schema. No argument may hold a value from the file."""
    return Refusal(Code.DATA_INVALID, what, why, do)

"""The kinds of sources by name, and the one way to read a site's records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from client.sources.arrays import read_arrays
from client.sources.source import Reading, Source
from client.sources.tables import read_table
from common.config import one_of
from common.data import Schema

Reader = Callable[[Source, Schema, Path], Reading]

SOURCES: Mapping[str, Reader] = {"table": read_table, "arrays": read_arrays}


def read_records(source: Source, schema: Schema, folder: Path) -> Reading:
    """The records behind `source`, as the schema of the job wants them.

    folder  from which a relative path is taken, the folder of site.toml
    Errors: Refusal CONFIG_INVALID for an unknown kind, FILE_MISSING, DATA_INVALID.
    """
    one_of(source.kind, "source kind", SOURCES.keys())
    return SOURCES[source.kind](source, schema, folder)

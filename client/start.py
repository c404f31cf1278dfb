"""What must hold before a site's processes start: a policy, a manifest, and data that can be read as site.toml says."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from client.policy import Policy
from client.site import DataSettings, SiteSettings
from client.sources.catalogue import SOURCES
from common.config import one_of, read
from common.errors import Code, Refusal
from common.secagg.manifest import Manifest, read_manifest

LONGEST = 1 << 20  # bytes of a header line


def check_site(settings: SiteSettings) -> bytes:
    """Refuse a site that its agent would refuse later; returns the digest of the manifest in force.

    Reads the line that names a table's columns, and no record.
    Errors: Refusal FILE_MISSING, CONFIG_INVALID, DATA_INVALID, E_MANIFEST, E_SIG.
    """
    read(Policy, Path(settings.policy))
    digest = manifest_of(settings).digest
    for held in settings.data:
        _check_data(held)
    return digest


def manifest_of(settings: SiteSettings) -> Manifest:
    """The manifest in force. Errors: Refusal FILE_MISSING, CONFIG_INVALID, E_MANIFEST, E_SIG."""
    try:
        governance = bytes.fromhex(settings.federation.governance)
    except ValueError:
        raise Refusal(
            Code.CONFIG_INVALID, "federation.governance", "it is no key in hex", "Copy it from your invitation"
        ) from None
    return read_manifest(Path(settings.federation.manifest), governance)


def _check_data(held: DataSettings) -> None:
    source, place = held.source, f"Data set {held.dataset!r}"
    one_of(source.kind, f"source kind of {held.dataset!r}", SOURCES.keys())
    path = Path(source.path)
    if not path.is_file() or not os.access(path, os.R_OK):
        why = f"{path} is not there" if not path.exists() else f"{path} cannot be read by this user, or is no file"
        raise Refusal(Code.FILE_MISSING, f"{place} not served", why, "Correct [data.source] of site.toml")
    if source.kind != "table" or not source.id:
        return
    names = list(source.columns) or [cell.strip().strip('"') for cell in _first_line(path).split(source.delimiter)]
    if source.id not in names:  # the names are not told: in a file without a header they are a record
        why = f"none of the {len(names)} columns of {path} bears that name"
        raise Refusal(Code.CONFIG_INVALID, f"source.id = {source.id!r}", why, "Correct it, or list source.columns")


def _first_line(path: Path) -> str:
    """The line that names the columns. Errors: Refusal DATA_INVALID."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as lines:
            return lines.readline(LONGEST).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        raise Refusal(
            Code.DATA_INVALID, f"{path} not read", "its first line is no text", "Export the file as UTF-8"
        ) from None

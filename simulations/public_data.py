"""Where data sets lie that everybody may have and nobody ships."""

from __future__ import annotations

import os
from pathlib import Path

from common.errors import Code, Refusal


def public_folder() -> Path:
    """The folder that the environment's HUSHFED_DATA names."""
    return Path(os.environ.get("HUSHFED_DATA", ""))


def absent(path: Path) -> Refusal:
    """The refusal of a file that is not there."""
    what, why = f"{path} not read", "these data are not part of hushfed"
    return Refusal(Code.FILE_MISSING, what, why, "Set HUSHFED_DATA to their folder")

"""A measurement as files: its rows as JSON, and their figure."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Any


def written(out: Path, result: Mapping[str, Any], figure: str, drawing: str) -> Path:
    """Write `result` as rows.json and `drawing`, an SVG, as `figure` into the folder `out`; the figure's path."""
    rows_written(out, result)
    path = out / figure
    path.write_text(drawing, encoding="utf-8")
    return path


def rows_written(out: Path, result: Mapping[str, Any]) -> Path:
    """Write `result` as rows.json into the folder `out`; its path."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "rows.json"
    path.write_text(dumps(result, indent=1) + "\n", encoding="utf-8")
    return path

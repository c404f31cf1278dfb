"""A measurement as files: its rows as JSON, and their figure."""

from __future__ import annotations

from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Any


def written(out: Path, result: Mapping[str, Any], figure: str, drawing: str) -> Path:
    """Write `result` as rows.json and `drawing`, an SVG, as `figure` into the folder `out`; the figure's path."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "rows.json").write_text(dumps(result, indent=1) + "\n", encoding="utf-8")
    path = out / figure
    path.write_text(drawing, encoding="utf-8")
    return path

"""What a process tells its keeper: one small JSON file, always whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import Code, Refusal
from common.surroundings import is_alive


def write_status(path: Path | None, fields: Mapping[str, Any]) -> None:
    """Replace the file at `path` by `fields`. A reader sees the old or the new one, never half.

    path  None: nobody asked for one
    Errors: none; a full disk must not stop the work of which this is only the notice.
    """
    if path is None:
        return
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh.write_text(json.dumps(dict(fields), sort_keys=True) + "\n", encoding="utf-8")
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)


def write_refusal(path: Path | None, refusal: Refusal) -> None:
    """Say why this process ends; where another one that still runs has its word at `path`, that word stays."""
    if living(read_status(path)).get("pid", os.getpid()) == os.getpid():
        write_status(path, {"error": refusal.code.value, "refusal": refusal.as_dict(), "when": round(time.time(), 3)})


def read_status(path: Path | None) -> dict[str, Any]:
    """The fields at `path`, or none if the file is absent or no JSON object."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return fields if isinstance(fields, dict) else {}


def living(fields: Mapping[str, Any]) -> dict[str, Any]:
    """`fields` if the process that wrote them still runs; otherwise nothing: a killed one cannot take back its word."""
    pid = fields.get("pid")
    return dict(fields) if isinstance(pid, int) and is_alive(pid) else {}


def refusal_in(fields: Mapping[str, Any]) -> Refusal | None:
    """The refusal with which a process ended, if that is what it wrote last."""
    table = fields.get("refusal")
    if not isinstance(table, dict) or table.keys() != {"code", "what", "why", "do"}:
        return None
    code = Code(table["code"]) if table["code"] in Code.__members__ else Code.PROCESS_FAILED
    return Refusal(code, str(table["what"]), str(table["why"]), str(table["do"]))


def last_refusal(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the process that wrote `fields` refused last, or ended with: code, what, why, do, when; None if nothing."""
    if (ended := refusal_in(fields)) is not None:
        return ended.as_dict() | {"when": fields.get("when")}
    told = fields.get("last_refusal")
    return dict(told) if isinstance(told, dict) and told.keys() >= {"code", "what", "why", "do", "when"} else None


def forget_process(path: Path) -> None:
    """Before a new process: what an earlier one said of itself is over; what it refused last stays."""
    if (kept := last_refusal(read_status(path))) is not None:
        write_status(path, {"last_refusal": kept})
    else:
        path.unlink(missing_ok=True)


class Notice:
    """A status file that is kept while a process works: every change at once, a bare `contact` once a second."""

    def __init__(self, path: Path, **fields: Any) -> None:
        self._path, self._fields, self._written = path, {"pid": os.getpid(), **fields}, 0.0

    def __call__(self, **news: Any) -> None:
        """Take over `news`."""
        changed = any(self._fields.get(name) != value for name, value in news.items() if name != "contact")
        self._fields.update(news)
        if changed or time.monotonic() - self._written > 1.0:
            self._written = time.monotonic()
            write_status(self._path, self._fields)

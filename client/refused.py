"""The last order that a site's agent refused, for its keeper: in the agent's status file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.errors import Code, Refusal
from common.status_file import last_refusal, living, read_status, write_status

SPEAKERS = frozenset({"client.session", "client.agent", "__main__"})  # who catches what an order ends with


class LastRefusal(logging.Handler):
    """A part of the agent's log: keeps the newest refusal in the status file, with all that its keeper may read.

    status  file of the agent         fields  what it says besides, and goes on saying
    Whoever logs a refusal does so while it is caught, so it is read as it is, and not out of a text. Of a fault only
    the name INTERNAL is kept: its text may quote a record.
    """

    def __init__(self, status: Path, fields: Mapping[str, Any]) -> None:
        super().__init__(logging.WARNING)
        self._status, self._fields = status, dict(fields)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the refusal that is being handled, if there is one."""
        error = sys.exc_info()[1]
        if record.name not in SPEAKERS or not isinstance(error, Exception):
            return
        told = error if isinstance(error, Refusal) else _FAULT
        write_status(self._status, {**self._fields, "last_refusal": told.as_dict() | {"when": round(time.time(), 3)}})


def agent_of(status: Path) -> dict[str, Any]:
    """What the site's agent says of itself; of one that is gone, what it refused last, or ended with."""
    found = read_status(status)
    if alive := living(found):
        return alive
    return {"last_refusal": told} if (told := last_refusal(found)) else {}


_FAULT = Refusal(Code.INTERNAL, "Order not answered", "this is a fault in hushfed", "Report it with the agent's log")

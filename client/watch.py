"""What a site's agent refuses, said on the terminal of `hushfed site up`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from common.console import remark
from common.status_file import read_status


class Watch:
    """Says on the terminal, in one line, what the agent refuses; again when it is another code or another thing."""

    def __init__(self, status: Path) -> None:
        self._status, self._said = status, ("", "")

    def __call__(self) -> None:
        """Look once."""
        found = read_status(self._status).get("last_refusal")
        if not isinstance(found, dict) or (found["code"], found["what"]) == self._said:
            return
        self._said = found["code"], found["what"]
        when = datetime.fromtimestamp(found["when"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        remark(f"{when}  refused {found['code']}: {found['what']}: {found['why']}. {found['do']}.")

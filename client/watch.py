"""What a site's agent refuses, said on the terminal of `hushfed site up`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from common.console import remark
from common.status_file import last_refusal, read_status


class Watch:
    """Says on the terminal, in one line, what the agent refuses; again when it is another code or another thing.

    What was refused before this watch began is not said: `hushfed site status` shows it.
    """

    def __init__(self, status: Path) -> None:
        self._status, self._said = status, ("", "")
        self._before = last_refusal(read_status(status))

    def __call__(self) -> None:
        """Look once."""
        found = read_status(self._status).get("last_refusal")
        if not isinstance(found, dict) or found == self._before or (found["code"], found["what"]) == self._said:
            return
        self._said = found["code"], found["what"]
        when = datetime.fromtimestamp(found["when"], UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        remark(f"{when}  refused {found['code']}: {found['what']}: {found['why']}. {found['do']}.")

"""policy.toml as it stands now: a keeper who changes it is obeyed with the next order, without a restart."""

from __future__ import annotations

from pathlib import Path

from client.policy import Policy
from common.config import read
from common.errors import Code, Refusal


class PolicyFile:
    """The policy in a file. Every look sees its newest content; what cannot be read allows nothing."""

    def __init__(self, path: Path):
        """Read it once. Errors: Refusal FILE_MISSING, CONFIG_INVALID naming the file."""
        self._path = path
        self._mark = _mark(path)
        self._policy = read(Policy, path)

    @property
    def now(self) -> Policy:
        """The policy in force. Errors: as at the start; then no order is carried out until the file is mended."""
        mark = _mark(self._path)
        if mark != self._mark:
            self._policy = read(Policy, self._path)
            self._mark = mark
        return self._policy


def _mark(path: Path) -> tuple[int, int, int]:
    """What differs once the file was written anew or replaced."""
    try:
        found = path.stat()
    except OSError:
        raise Refusal(Code.FILE_MISSING, f"{path} not read", "there is no such file", "Restore the policy") from None
    return found.st_ino, found.st_size, found.st_mtime_ns

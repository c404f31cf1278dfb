"""Start a command that dies with the process that started it. Run as a script: child.py PARENT COMMAND ..."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Ask the kernel for a SIGKILL when the parent is gone, then become the command.

    A step of its own, because the code between fork and exec of a process with threads may not be Python's.
    Other systems than Linux lack the call; there the command runs without that protection.
    """
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()

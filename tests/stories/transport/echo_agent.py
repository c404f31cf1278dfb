"""An agent that knows no records: it echoes, sleeps, fails or dies as the order says."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from client.agent import isolation, serve
from common.errors import Code, Refusal
from common.status_file import write_status


def handle(frame: bytes) -> bytes:
    """The order is a word and its operand: `echo xyz`, `size N`, `sleep S`, `die`, `fail`, `refuse`."""
    word, _, rest = frame.partition(b" ")
    if word == b"sleep":
        time.sleep(float(rest))
    elif word == b"size":
        return b"x" * int(rest)
    elif word == b"die":
        os._exit(9)
    elif word == b"fail":
        raise ValueError("the secret of patient 17")
    elif word == b"refuse":
        raise Refusal(Code.POLICY_TASK, "patient 17", "patient 17", "patient 17")
    return rest


def refusing(code: Code) -> bytes:
    """A refusal as a reply of its own."""
    return b"refused " + code.value.encode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--refusing", action="store_true")
    for name in ("site", "socket", "status"):
        parser.add_argument(f"--{name}", type=Path)
    options = parser.parse_args()
    write_status(options.status, {"isolation": isolation(), "pid": os.getpid()})
    serve(handle, options.socket, refusing if options.refusing else None)


if __name__ == "__main__":
    main()

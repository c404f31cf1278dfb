"""A site that works on one order and tells of every local step when it begins; whoever started it kills it somewhere.

Arguments: site.toml, and the file with the sealed order.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from client import private_step
from client.session import open_session

SECONDS = 0.02  # that a step takes at least
drawn = private_step.poisson


def told(*arguments: Any) -> Any:
    """The records of a step, after word of it."""
    os.write(1, b"s")
    time.sleep(SECONDS)
    return drawn(*arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    private_step.poisson = told
    with open_session(Path(sys.argv[1])) as session:
        session.handle(Path(sys.argv[2]).read_bytes())
    os.write(1, b"e")

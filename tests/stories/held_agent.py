"""A site's agent that stops in the middle of training while a file `hold` lies beside its site.toml.

Everything else is the real agent. `held` appears once records are in use: the charge is on disk, nothing has left.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from client import agent
from client.labour import Labour

train = Labour._trained


def train_when_let(labour: Labour, *order: Any) -> Any:
    """`Labour._trained`, begun but not ended while the file is there."""
    folder = Path(labour._settings.state).parent
    while (folder / "hold").exists():
        (folder / "held").touch()
        time.sleep(0.02)
    return train(labour, *order)


if __name__ == "__main__":
    Labour._trained = train_when_let  # type: ignore[method-assign]  # the pause is what this program is for
    agent.main()

"""A site's agent that takes an order to unmask and never answers it, for the number in a file `lose` beside site.toml.

Everything else is the real agent. `lost` appears once the order has come: the site has reported, and has not unmasked.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from client import agent
from client.session import Session

unmask = Session._unmask


def unmask_unless_lost(session: Session, order: Any, *rest: Any) -> Any:
    """`Session._unmask`, but not for the number that is to be lost."""
    folder = Path(session._settings.state).parent
    while (folder / "lose").exists() and (folder / "lose").read_text() == str(order.sets[0].number):
        (folder / "lost").touch()
        time.sleep(0.02)
    return unmask(session, order, *rest)


if __name__ == "__main__":
    Session._unmask = unmask_unless_lost  # type: ignore[method-assign]  # the loss is what this program is for
    agent.main()

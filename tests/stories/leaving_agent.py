"""A site's agent that has dealt its shares and never masks its vector, for the number in a file `lose`.

Everything else is the real agent. `lost` appears once the order to mask has come, beside site.toml as `lose` does: all
others then share masks with a site whose vector never comes.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from client import agent
from client.labour import Labour
from client.pair_orders import PairOrders
from common.secagg.pairwise.orders import MaskOrder

answer = PairOrders.answer


def answer_unless_lost(orders: PairOrders, order: Any, *rest: Any) -> Any:
    """`PairOrders.answer`, but not to an order to mask under the number that is to be lost."""
    labour: Labour = orders._labour
    folder = Path(labour._settings.state).parent
    while isinstance(order, MaskOrder) and (folder / "lose").exists() and _number(folder) == order.number:
        (folder / "lost").touch()
        time.sleep(0.02)
    return answer(orders, order, *rest)


def _number(folder: Path) -> int:
    return int((folder / "lose").read_text())


if __name__ == "__main__":
    PairOrders.answer = answer_unless_lost  # type: ignore[method-assign]  # the loss is what this program is for
    agent.main()

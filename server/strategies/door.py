"""Strategies: how the coordinator turns updates into the next model."""

from __future__ import annotations

import typer

from common import console
from common.catalogue import described
from common.listing import listing
from server.strategies.catalogue import STRATEGIES
from server.strategies.votes import STAGES

app = listing(STRATEGIES, "Strategies of the coordinator.")


@app.command("pre")
@console.guarded
def pre(json: bool = typer.Option(False, "--json", help="One JSON object as the last line.")) -> None:
    """List what can come before a strategy that votes over groups (`pre` in its settings)."""
    console.emit({"entries": described(STAGES)}, json=json)

"""Strategies: how the coordinator turns updates into the next model."""

from __future__ import annotations

import typer

from common import console
from common.catalogue import described
from server.strategies.catalogue import STRATEGIES

app = typer.Typer(help="Strategies of the coordinator.", no_args_is_help=True)


@app.callback()
def strategies() -> None:
    """Strategies of the coordinator."""


@app.command("list")
@console.guarded
def listed(json: bool = typer.Option(False, "--json", help="One JSON object as the last line.")) -> None:
    """List the strategies with their papers and what they mean for privacy."""
    console.emit({"entries": described(STRATEGIES)}, json=json)

"""Losses and optimizers: what the sites train with."""

from __future__ import annotations

from typing import Any

import typer

from common import console
from common.catalogue import Catalogue, described
from common.learning.losses import LOSSES
from common.learning.optimizers import OPTIMIZERS


def _door(known: Catalogue[Any], title: str) -> typer.Typer:
    """A group with the one command `list`."""
    app = typer.Typer(help=title, no_args_is_help=True)

    app.callback()(lambda: None)  # without it the one command would not be called `list`

    @app.command("list")
    @console.guarded
    def listed(json: bool = typer.Option(False, "--json", help="One JSON object as the last line.")) -> None:
        """List the entries with their papers and what they mean for privacy."""
        console.emit({"entries": described(known)}, json=json)

    return app


losses = _door(LOSSES, "Losses of single records.")
optimizers = _door(OPTIMIZERS, "Optimizers of the sites.")

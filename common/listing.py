"""The command group of a catalogue: `list`, and nothing else."""

from __future__ import annotations

from typing import Any

import typer

from common import console
from common.catalogue import Catalogue, described


def listing(known: Catalogue[Any], title: str) -> typer.Typer:
    """A group of commands with the title `title` that lists the entries of `known`."""
    app = typer.Typer(help=title, no_args_is_help=True)

    app.callback()(lambda: None)  # without it the one command would not be called `list`

    @app.command("list")
    @console.guarded
    def listed(json: bool = typer.Option(False, "--json", help="One JSON object as the last line.")) -> None:
        """List the entries with their papers and what they mean for privacy."""
        console.emit({"entries": described(known)}, json=json)

    return app

"""Models: the architectures that can be trained."""

from __future__ import annotations

import typer

from common import console
from common.catalogue import described
from common.models.catalogue import MODELS

app = typer.Typer(help="Architectures that can be trained.", no_args_is_help=True)


@app.callback()
def models() -> None:
    """Architectures that can be trained."""


@app.command("list")
@console.guarded
def listed(json: bool = typer.Option(False, "--json", help="One JSON object as the last line.")) -> None:
    """List the architectures with their papers and whether they can be trained privately."""
    console.emit({"entries": described(MODELS)}, json=json)

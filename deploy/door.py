"""hushfed fed: start a federation's processes on this host and keep them running."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from common import console
from deploy.host import Addresses, layout_of
from deploy.up import Federation, network_isolation

app = typer.Typer(help="Run a federation's processes on one host.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Run a federation's processes on one host."""


@app.command("up")
@console.guarded
def up(
    root: Annotated[Path, typer.Argument(help="Folder of the federation.")],
    *,
    public: Annotated[str | None, typer.Option(help="HOST:PORT that sites reach.")] = None,
    private: Annotated[str | None, typer.Option(help="Loopback HOST:PORT for operators.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object once everything runs.")] = False,
) -> console.Exit:
    """Start server, executor and the sites of ROOT; restart what dies; end with Ctrl-C."""
    addresses = Addresses(public, private) if public and private else None
    layout = layout_of(root.resolve(), addresses)
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    with Federation(layout) as federation:
        console.emit(
            {
                "status": "running",
                "public": layout.public,
                "private": layout.private,
                "processes": federation.pids(),
                "agents_without_network": bool(network_isolation()),
            },
            json=json,
        )
        stopping.wait()
    return console.Exit.DONE

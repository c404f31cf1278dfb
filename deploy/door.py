"""hushfed fed: start a federation's processes on this host and keep them running."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from common import console
from common.errors import Code, Refusal
from common.stopping import Stopping
from common.surroundings import network_isolation
from deploy.host import Addresses, admit_sites, control_of, layout_of, manifest_in
from deploy.lost import Lost
from deploy.up import Federation

app = typer.Typer(help="Run a federation's processes on one host.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Run a federation's processes on one host."""


@app.command("up")
@console.guarded
def up(
    root: Annotated[Path, typer.Argument(help="Folder of the federation.")],
    *,
    public: Annotated[str | None, typer.Option(help="HOST:PORT that sites reach [a free one].")] = None,
    private: Annotated[str | None, typer.Option(help="Loopback HOST:PORT for operators [a free one].")] = None,
    server_only: Annotated[bool, typer.Option(help="Leave the sites to their own `hushfed site up`.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object once everything runs.")] = False,
) -> console.Exit:
    """Start server, executor and the sites of ROOT; restart what dies; end with Ctrl-C.

    A site whose agent or link refuses to go on is named on standard error, and the others go on; the command ends when
    the server refuses, or no site is left.
    """
    layout = layout_of(root.resolve(), Addresses.of(public, private))
    if server_only:
        layout = replace(layout, sites=())
    with Stopping() as stopping, Federation(layout) as federation:
        if server_only:
            admit_sites(root.resolve(), federation.fleet)
        stopping.settled()
        console.emit(
            {
                "status": "running",
                "public": layout.public,
                "private": layout.private,
                "processes": federation.pids(),
                "agents_without_network": bool(network_isolation()),
                "manifest": manifest_in(root.resolve()).digest.hex(),
            },
            json=json,
        )
        stopping.wait(Lost(federation.refused, [site.name for site in layout.sites]))
    return console.Exit.DONE


@app.command("nodes")
@console.guarded
def nodes(
    root: Annotated[Path, typer.Argument(help="Folder of the federation.")],
    *,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """List the sites whose key is admitted, and whether they are online; and the digest of the manifest in force."""
    control = control_of(root.resolve())
    try:
        found = [{"name": node.name, "online": node.online} for node in control.nodes()]
    finally:
        control.close()
    console.emit({"status": "ok", "nodes": found, "manifest": manifest_in(root.resolve()).digest.hex()}, json=json)
    return console.Exit.DONE


@app.command("revoke")
@console.guarded
def revoke(
    site: Annotated[str, typer.Argument(help="Name of the site.")],
    *,
    root: Annotated[Path, typer.Option("--federation", help="Folder of the federation.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """Take a site's node key back: the server refuses it from now on, for ever."""
    control = control_of(root.resolve())
    try:
        for node in control.nodes():
            if node.name == site:
                control.revoke(node.public)
                console.emit({"status": "revoked", "site": site}, json=json)
                return console.Exit.DONE
    finally:
        control.close()
    raise Refusal(Code.KEY_REFUSED, f"{site!r} not revoked", "no admitted key has that name", "See `hushfed fed nodes`")

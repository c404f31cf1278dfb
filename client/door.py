"""hushfed site: what a site's keeper runs and asks: start it, its state, its budget, and why a job is refused."""

from __future__ import annotations

import contextlib
import math
import signal
import sqlite3
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from client.holding import ledger_path
from client.policy import Policy, TaskName, lines
from client.site import DataSettings, SiteSettings, read_site
from client.status_file import read_status
from client.up import SiteUp, agent_status, link_status
from common import console
from common.config import load, read, read_table
from common.errors import Code, Refusal
from common.identity import Signer
from common.job import Job
from common.parameters import layout_of
from common.privacy.accounting import REPORT
from common.privacy.entries import Entry, Line, check_signature, read_chain
from common.privacy.spending import spending_of
from common.work import model_of

app = typer.Typer(help="Run and question one site.", no_args_is_help=True)

Site = Annotated[Path, typer.Argument(help="site.toml")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
ASKED: tuple[TaskName, ...] = ("offer", "train", "evaluate", "ledger")


@app.callback()
def _group() -> None:
    """Run and question one site."""


@app.command("up")
@console.guarded
def up(
    site: Site,
    *,
    superlink: Annotated[str, typer.Option(help="HOST:PORT of the federation; site.toml's if not given.")] = "",
    patience: Annotated[float, typer.Option(help="Seconds to wait until the server admits the site.")] = 60.0,
    json: Json = False,
) -> console.Exit:
    """Start this site's agent and link, restart what dies, end with Ctrl-C."""
    settings = read_site(site)
    address = superlink or settings.federation.superlink
    if not address:
        raise Refusal(
            Code.CONFIG_INVALID, "Site not started", "it does not know the server", "Give --superlink HOST:PORT"
        )
    stopping = threading.Event()
    with SiteUp(site, settings, address) as running:
        link = running.wait_joined(patience)
        for number in (signal.SIGTERM, signal.SIGINT):  # only now: before, Ctrl-C must not wait
            signal.signal(number, lambda *_: stopping.set())
        isolated = read_status(agent_status(Path(settings.state) / "run")).get("isolation") == "netns"
        console.emit(
            {
                "status": "joined",
                "site": settings.name,
                "processes": running.pids(),
                "link": link,
                "agent_without_network": isolated,
            },
            json=json,
        )
        stopping.wait()
    return console.Exit.DONE


@app.command("status")
@console.guarded
def status(site: Site, *, json: Json = False) -> console.Exit:
    """Show whether the site's processes are connected, and what every data set has spent."""
    settings = read_site(site)
    run = Path(settings.state) / "run"
    link, agent = read_status(link_status(run)), read_status(agent_status(run))
    found = {
        "status": "joined" if link.get("joined") else "away",
        "site": settings.name,
        "link": link,
        "agent": agent,
        "budget": [_budget(settings, held) for held in settings.data],
    }
    console.emit(found, json=json)
    return console.Exit.DONE if link.get("joined") else console.Exit.FAIL


@app.command("budget")
@console.guarded
def budget(site: Site, *, json: Json = False) -> console.Exit:
    """Show what was spent on every data set, recomputed from the ledger's plans."""
    settings = read_site(site)
    console.emit(
        {"status": "ok", "site": settings.name, "datasets": [_budget(settings, held) for held in settings.data]},
        json=json,
    )
    return console.Exit.DONE


@app.command("explain")
@console.guarded
def explain(
    job: Annotated[Path, typer.Argument(help="job.toml")],
    *,
    site: Annotated[Path, typer.Option(help="site.toml")] = Path("site.toml"),
    json: Json = False,
) -> console.Exit:
    """Say whether this site's policy allows a job, and which line decides."""
    policy = read(Policy, Path(read_site(site).policy))
    table = read_table(job)
    asked = load(Job, table["job"] if isinstance(table.get("job"), dict) else table)
    size = layout_of(model_of(asked)).size
    rows = [
        {"task": task, "rule": line.setting, "asked": line.asked, "allowed": line.allowed, "code": line.code.value}
        for task in ASKED
        for line in lines(policy, asked, task, size)
    ]
    refused = [row for row in rows if not row["allowed"]]
    found = {
        "status": "refused" if refused else "allowed",
        "deciding": refused[0] if refused else None,
        "lines": refused or [row for row in rows if row["task"] == "train"],
    }
    console.emit(found, json=json)
    return console.Exit.FAIL if refused else console.Exit.DONE


def _budget(settings: SiteSettings, held: DataSettings) -> dict[str, Any]:
    """One data set's spending. Reads the ledger without its lock, so that a running agent is not disturbed."""
    rules = read(Policy, Path(settings.policy)).privacy
    path = ledger_path(settings, held)
    entries = _entries(path, Signer.load(Path(settings.state) / "identity").public) if path.exists() else []
    spent = spending_of(entries, rules.stated_delta, REPORT)
    return {
        "dataset": held.dataset,
        "epsilon": spent.epsilon if math.isfinite(spent.epsilon) else None,
        "training": spent.nominal["train"],
        "holdout": spent.nominal["holdout"],
        "limit": rules.max_epsilon,
        "left": max(0.0, rules.max_epsilon - spent.gated),
        "delta": rules.stated_delta,
        "entries": len(entries),
        "void": list(spent.void),
    }


def _entries(path: Path, public: bytes) -> list[Entry]:
    """The verified entries of a ledger file. Errors: Refusal LEDGER_TAMPERED."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT body, hash, signature FROM lines ORDER BY seq").fetchall()
        found = [Line(*(memoryview(part).tobytes() for part in row)) for row in rows]
    except (sqlite3.DatabaseError, TypeError):  # no ledger at all, or a line in it is not of bytes
        raise Refusal(
            Code.LEDGER_TAMPERED, f"Ledger {path} not read", "the file is damaged", "Restore its newest copy"
        ) from None
    entries = read_chain(found)
    for seq, line in enumerate(found):
        check_signature(line, public, seq)
    return entries

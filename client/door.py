"""hushfed site: what a site's keeper runs and asks: start it, its state, its budget, and why a job is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from client.budget import budget_of, entries_of, epsilon_with
from client.limits import Limit, limit_change
from client.policy import Policy, TaskName, lines
from client.refused import agent_of
from client.site import DataSettings, SiteSettings, read_site
from client.start import check_site, manifest_of
from client.up import SiteUp, agent_status, link_status
from client.watch import Watch
from common import console
from common.addresses import checked_address
from common.config import load, naming, read, read_table
from common.errors import Code, Refusal
from common.job import Job
from common.parameters import layout_of
from common.status_file import living, read_status
from common.stopping import Stopping
from common.work import model_of, sum_min, whole_run, work_of

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
    checked_address(address, "--superlink" if superlink else "federation.superlink")
    digest = check_site(settings).hex()
    watch = Watch(agent_status(Path(settings.state) / "run"))

    def look() -> None:
        running.refuse_if_refused()
        if not json:
            watch()

    with Stopping() as stopping, SiteUp(site, settings, address) as running:
        link = running.wait_joined(patience)
        isolated = read_status(agent_status(Path(settings.state) / "run")).get("isolation") == "netns"
        stopping.settled()
        console.emit(
            {
                "status": "joined",
                "site": settings.name,
                "processes": running.pids(),
                "link": link,
                "agent_without_network": isolated,
                "manifest": digest,
            },
            json=json,
        )
        stopping.wait(look)
    return console.Exit.DONE


@app.command("status")
@console.guarded
def status(site: Site, *, json: Json = False) -> console.Exit:
    """Show whether the site's processes are connected, what it refused last, and what every data set has spent."""
    settings = read_site(site)
    run = Path(settings.state) / "run"
    link, agent = living(read_status(link_status(run))), agent_of(agent_status(run))
    budget = [_budget(settings, held) for held in settings.data]
    found = {
        "status": "joined" if link.get("joined") else "away",
        "site": settings.name,
        "link": link,
        "agent": agent,
        "manifest": _manifest(settings),
        "budget": budget,
    }
    console.emit(found, json=json)
    sound = link.get("joined") and not any("refusal" in row for row in budget)
    return console.Exit.DONE if sound else console.Exit.FAIL


@app.command("budget")
@console.guarded
def budget(site: Site, *, json: Json = False) -> console.Exit:
    """Show what was spent on every data set, recomputed from the ledger's plans."""
    settings = read_site(site)
    console.emit(
        {"status": "ok", "site": settings.name, "datasets": [budget_of(settings, held) for held in settings.data]},
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
    """Say whether this site's policy and budget allow a job, and which line decides."""
    settings = read_site(site)
    policy = read(Policy, Path(settings.policy))
    table = read_table(job)
    with naming(job):
        asked = load(Job, table["job"] if isinstance(table.get("job"), dict) else table)
    size, least = layout_of(model_of(asked)).size, _sum_min(settings, asked)
    rows = [
        {"task": task, "rule": line.setting, "asked": line.asked, "allowed": line.allowed, "code": line.code.value}
        for task in ASKED
        for line in lines(policy, asked, task, size, least)
    ]
    rows += [row for row in (_limited(settings, policy, asked), _affords(settings, policy, asked)) if row]
    refused = [row for row in rows if not row["allowed"]]
    found = {
        "status": "refused" if refused else "allowed",
        "deciding": refused[0] if refused else None,
        "lines": refused or [row for row in rows if row["task"] in ("train", "run")],
        "min_records": policy.data.min_records,
        "counted_later": "whether there are min_records is seen when the agent reads the records",
    }
    console.emit(found, json=json)
    return console.Exit.FAIL if refused else console.Exit.DONE


def _sum_min(settings: SiteSettings, job: Job) -> int:
    """Reports that every opened sum is sure to hold; without a valid manifest, under which no order is taken, those
    that the job asks for.
    """
    try:
        return sum_min(job, manifest_of(settings))
    except Refusal:
        return job.aggregation.quorum


def _limited(settings: SiteSettings, policy: Policy, job: Job) -> dict[str, Any] | None:
    """Whether a limit that was changed since the last charge has its reason; None where it is the same as before."""
    rules = policy.privacy
    row = {"task": "run", "rule": f"[privacy] reason = {rules.reason!r}", "code": Code.POLICY_PRIVACY.value}
    asked = {"asked": f"the reason why max_epsilon is now {rules.max_epsilon:g}, at delta {rules.stated_delta:g}"}
    try:
        entries = entries_of(settings, settings.dataset(job.dataset))
        changed = limit_change(entries, Limit(rules.max_epsilon, rules.stated_delta, rules.reason))
    except Refusal as refusal:
        return row | asked | {"allowed": False} if refusal.code is Code.POLICY_PRIVACY else None
    return row | asked | {"allowed": True} if changed else None


def _affords(settings: SiteSettings, policy: Policy, job: Job) -> dict[str, Any] | None:
    """Whether what is left of the budget affords the whole run; None where policy or manifest leave nothing to ask."""
    limit = policy.privacy.max_epsilon
    try:
        held = settings.dataset(job.dataset)
        charges = whole_run(work_of(job, manifest_of(settings)))
    except Refusal:
        return None
    if job.privacy.mode == "none":
        return None
    left, after = budget_of(settings, held)["left"], epsilon_with(settings, held, charges)
    return {
        "task": "run",
        "rule": f"[privacy] max_epsilon = {limit}, of which {math.floor(left * 1000) / 1000:g} is left",
        "asked": f"{math.ceil(after * 1000) / 1000:g} after {job.rounds} rounds, everything of before included",
        "allowed": after <= limit,
        "code": Code.BUDGET_EXHAUSTED.value,
    }


def _budget(settings: SiteSettings, held: DataSettings) -> dict[str, Any]:
    """What the data set has spent; why that cannot be told, for a status that must be seen just then."""
    try:
        return budget_of(settings, held)
    except Refusal as refusal:
        return {"dataset": held.dataset, "refusal": refusal.as_dict()}


def _manifest(settings: SiteSettings) -> str | None:
    """Digest of the manifest in force, to compare with other keepers; None where there is no valid one."""
    try:
        return manifest_of(settings).digest.hex()
    except Refusal:
        return None

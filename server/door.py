"""hushfed job: read a job as the coordinator would, and say what is wrong with it before anybody is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from common import console
from common.errors import Code, Refusal
from common.job import Job
from common.privacy import claims
from common.work import work_of
from server.coordinator import manifest_of
from server.job import read_job
from server.robustness import LIMITS, promise
from server.strategies.catalogue import strategy

app = typer.Typer(help="Check a job before it is run.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Check a job before it is run."""


@app.command("check")
@console.guarded
def check(
    job: Annotated[Path, typer.Argument(help="job.toml")],
    *,
    federation: Annotated[Path, typer.Option(help="Folder of the federation.")],
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """Refuse a job whose settings cannot live together; otherwise show its noise, its reports and what it promises."""
    coordinator = federation / "coordinator"
    if not (coordinator / "manifest.json").exists():
        why = "it holds no coordinator/manifest.json"
        raise Refusal(Code.FILE_MISSING, f"{federation} not read", why, "Name the folder that `fed up` is given")
    manifest = manifest_of(coordinator)
    read = read_job(job, manifest)
    work = work_of(read, manifest)
    plans = (*work.plans("train"), work.counting) if read.privacy.private else ()
    planned = [(plan, plan.steps * plan.releases) for plan in plans]
    console.emit(
        {
            "status": "ok",
            "job": read.name,
            "digest": read.digest().hex(),
            "manifest": manifest.digest.hex(),
            "parameters": work.layout.size,
            "report_bytes": work.codec("train").ring.packed,
            "noise_multiplier": work.training.noise_multiplier,
            "noise_deviation": work.training.sum_deviation * work.training.honest**0.5,
            "releases": work.training.releases,
            "counts_noise_multiplier": work.counting.noise_multiplier,
            "claims": claims.promise("in this job", planned, work.training.delta).sentences() if planned else [],
            **_promised(read, len(manifest.sites)),
        },
        json=json,
    )
    return console.Exit.DONE


def _promised(job: Job, sites: int) -> dict[str, str]:
    """What a job that votes promises against lying sites, and what it does not."""
    combine = strategy(job.aggregation.strategy, **job.aggregation.settings).combine
    if combine.needs == "sum":
        return {}
    made = promise(combine, sites=sites, groups=job.aggregation.groups, cohort=job.aggregation.cohort)
    return {"lying_sites": made.words, "limits": LIMITS}

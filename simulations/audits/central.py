"""Whether the coordinator accounted for every sum that it noised; it has no ledger where sites add the noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common.config import plain
from common.errors import Refusal
from common.messages import COORDINATOR
from common.privacy.chain import verify_public
from common.privacy.entries import Entry, Kind
from common.privacy.mechanism import MechanismPlan
from common.work import Work
from simulations.audits.problems import Finding, Problem
from simulations.audits.runs import Run
from simulations.audits.terms import unlike

WHO = "coordinator"


def unaccounted(run: Run, work: Work | None) -> Iterator[Finding]:
    """What is wrong with the coordinator's ledger: who trusts its noise can hold it to what it signed."""
    if work is None:
        return
    if not work.job.privacy.central:
        if run.central is not None:
            detail = (
                "coordinator.jsonl is there, and by its job the coordinator adds no noise that it could account for"
            )
            yield Finding(Problem.RECORD_MISMATCH, WHO, detail)
        return
    if run.central is None:
        yield Finding(Problem.LEDGER_MISSING, WHO, "coordinator.jsonl, which accounts for its noise, is not there")
        return
    try:
        entries = verify_public(run.central, work.manifest.coordinator)
    except Refusal as refusal:
        yield Finding(Problem.CHAIN_BROKEN, WHO, f"{refusal.what}: {refusal.why}")
        return
    if any(entry.site != COORDINATOR for entry in entries):
        yield Finding(Problem.SITE_MISMATCH, WHO, "its entries name a site")
    yield from _unsettled(run, entries)
    try:
        planned = plain(work.training)
    except Refusal:  # found with the plans of the sites
        return
    for plan in _plans(run, entries):
        if told := unlike(planned, plain(plan)):
            yield Finding(Problem.JOB_MISMATCH, WHO, told)


def _unsettled(run: Run, entries: Sequence[Entry]) -> Iterator[Finding]:
    """Rounds without a settled charge."""
    settled = {entry.reserve for entry in entries if entry.kind is Kind.SETTLE and entry.steps}
    done = {entry.facts.round for entry in _of_run(run, entries) if entry.seq in settled and entry.facts}
    missing = [row["round"] for row in run.rounds if row["round"] not in done]
    if missing:
        detail = f"it accounted for no noise in round {missing[0]}, of {len(missing)} such rounds"
        yield Finding(Problem.ENTRY_MISSING, WHO, detail)


def _plans(run: Run, entries: Sequence[Entry]) -> list[MechanismPlan]:
    return list({entry.plan_id: entry.plan for entry in _of_run(run, entries) if entry.plan}.values())


def _of_run(run: Run, entries: Sequence[Entry]) -> list[Entry]:
    return [entry for entry in entries if entry.facts is not None and entry.facts.run == run.facts["run"]]

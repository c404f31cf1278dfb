"""What the sites signed for in a run, from the plans in their ledgers; and whether run.json says the same."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args

import torch

from common.config import load, plain
from common.errors import Refusal
from common.job import Job
from common.orders import Task
from common.privacy.mechanism import MechanismPlan, Partition
from common.privacy.spending import PARTITIONS, Spending
from common.privacy.units import Unit
from common.secagg.manifest import manifest_from
from common.work import Work, work_of
from simulations.audits.accounts import Account, Cost
from simulations.audits.problems import Finding, Problem
from simulations.audits.runs import Run, figure

SLACK = 1e-3  # a site computes with a coarser grid than the audit; more than this below is an understatement
ANY_DELTA = 1e-5  # where no plan has one: epsilon is then infinite, or nothing was charged
_FOUND = frozenset({"noise_multiplier", "scale"})  # found by search; what they cost is recomputed instead

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What all sites of a run signed alike; None or nothing where they did not, or where no noise was promised.

    delta     smallest of all plans: every epsilon is largest there
    promised  epsilon of the run for one record, by partition; promised_site of a whole site, if anything is
    honest    sites that share the noise of a sum, by partition
    """

    mode: str | None
    unit: str | None
    noise: str | None
    delta: float | None
    promised: Mapping[Partition, float]
    honest: Mapping[Partition, int]
    promised_site: float | None = None

    @property
    def limit(self) -> float | None:
        """The largest epsilon that the run promised any record; of a run whose unit is the site, any site."""
        if self.unit == Unit.SITE:
            return self.promised_site
        return max((value for value in self.promised.values() if value), default=None)

    def figure(self, spent: Spending) -> float:
        """What of a site's spending the run's epsilon speaks of: its unit is the run's."""
        by_site = self.unit == Unit.SITE and spent.site is not None and not spent.void
        return spent.site if by_site and spent.site is not None else spent.epsilon


def terms_of(accounts: Iterable[Account]) -> Terms:
    """The terms in the signed plans of the audited run."""
    plans = _plans(accounts)
    deltas = [plan.delta for plan in plans if plan.delta]
    private, outer = bool(deltas), [plan for plan in plans if not _inner(plan)]
    return Terms(
        mode=_common(str(plan.mode) for plan in outer),
        unit=_common(plan.unit.value for plan in outer if plan.partition == "train") if private else None,
        noise=_common(str(plan.noise) for plan in plans),
        delta=min(deltas, default=None),
        promised={
            part: min(p.epsilon for p in plans if p.partition == part and p.bounds_records) for part in _parts(plans)
        },
        promised_site=min((p.epsilon for p in outer if p.unit is Unit.SITE), default=None),
        honest={part: max(p.honest for p in plans if p.partition == part) for part in _parts(plans)},
    )


def work_or_why(run: Run) -> tuple[Work | None, Finding | None]:
    """The work that run.json's own job and manifest make; or why they make none. No model is built, only its shapes."""
    try:
        manifest = manifest_from(run.facts["manifest"])
    except Refusal as refusal:
        return None, Finding(Problem.MANIFEST_INVALID, "", f"{refusal.what}: {refusal.why}")
    try:
        with torch.device("meta"):
            return work_of(load(Job, run.facts["job"], "job"), manifest), None
    except Refusal as refusal:
        return None, Finding(Problem.JOB_MISMATCH, "", f"{refusal.what}: {refusal.why}")


def compare_plans(run: Run, work: Work | None, accounts: Iterable[Account]) -> Iterator[Finding]:
    """What the plans of a run must have in common, with each other and with the job, and what they may not be."""
    plans = _plans(accounts)
    if run.facts.get("noise") == "replay" or any(plan.noise == "replay" for plan in plans):
        yield Finding(Problem.NOISE_REPLAY, "", "the noise of this run can be repeated by whoever knows its seed")
    mode = run.facts["job"]["privacy"].get("mode")
    for part in PARTITIONS:
        those = [plan for plan in plans if plan.partition == part and not _inner(plan)]
        if len(those) > 1 or any(plan.mode != mode for plan in those):
            yield Finding(Problem.PLAN_MISMATCH, "", f"the sites did not charge one plan of mode {mode} for {part}")
    if work is not None:
        yield from _unlike_the_job(work, plans)
        yield from _of_another_job(work.job.digest().hex(), accounts)


def _of_another_job(job: str, accounts: Iterable[Account]) -> Iterator[Finding]:
    """Sites whose ledgers say that they worked for another job than that of run.json, in whatever setting."""
    for account in accounts:
        if any(entry.facts is not None and entry.facts.job != job for entry in account.mine):
            yield Finding(Problem.JOB_MISMATCH, account.site, "its charges name another job than run.json holds")


def _unlike_the_job(work: Work, plans: Iterable[MechanismPlan]) -> Iterator[Finding]:
    """The plans that sites signed and that the job of run.json does not lead to."""
    for task in get_args(Task):
        try:
            wanted = work.plans(task)
        except Refusal as refusal:
            yield Finding(Problem.JOB_MISMATCH, "", f"no plan follows from its job: {refusal.what}: {refusal.why}")
            continue
        signed = [plan for plan in plans if plan.partition == wanted[-1].partition]
        if signed and len(wanted) > 1 and len(signed) < len(wanted):
            yield Finding(Problem.JOB_MISMATCH, "", f"for {signed[0].partition}, its job leads to more plans")
        for plan in signed:
            asked = wanted[0] if _inner(plan) else wanted[-1]
            if told := unlike(plain(asked), plain(plan)):
                yield Finding(Problem.JOB_MISMATCH, "", f"for {plan.partition}, {told}")


def unlike(asked: Mapping[str, Any], signed: Mapping[str, Any]) -> str:
    """Which settings of the plan differ, in words; empty if none does."""
    names = [name for name in asked if name not in _FOUND and asked[name] != signed[name]]
    told = ", ".join(f"{name} {asked[name]} instead of {signed[name]}" for name in names)
    return told and f"its job leads to {told} in the plan that was signed"


def exceeded(accounts: Iterable[tuple[Account, Cost | None]], terms: Terms) -> Iterator[Finding]:
    """What this run cost each site against what its plans promised."""
    for account, cost in accounts:
        for part, epsilon in (cost.run.nominal if cost else {}).items():
            limit = terms.promised.get(part)
            if limit and not epsilon <= limit + SLACK:
                detail = f"its {part} records cost {epsilon:.4f}, its plans promised {limit:g}"
                yield Finding(Problem.BUDGET_EXCEEDED, account.site, detail)
        whole, limit = cost.run.site if cost else None, terms.promised_site
        if whole is not None and limit is not None and not whole <= limit + SLACK:
            detail = f"it cost the site {whole:.4f} as a whole, its plans promised {limit:g}"
            yield Finding(Problem.BUDGET_EXCEEDED, account.site, detail)


def understated(run: Run, accounts: Iterable[tuple[Account, Cost | None]]) -> Iterator[Finding]:
    """The figure that the run reported of each site, against what the site's plans cost."""
    for account, cost in accounts:
        told, least = reported(run, account.site), cost.whole.gated if cost else 0.0
        if not told >= least - SLACK:  # a figure that is no number is one too small
            detail = f"it reported {told:.4f}, its plans cost {least:.4f}"
            yield Finding(Problem.EPSILON_UNDERSTATED, account.site, detail)


def reported(run: Run, site: str) -> float:
    """What the run said that a site has spent: infinite if it claimed nothing, NaN if it is no number."""
    value = run.facts["heads"].get(site, {}).get("epsilon")
    return math.inf if value is None else figure(value)


def _plans(accounts: Iterable[Account]) -> list[MechanismPlan]:
    return list({plan.plan_id: plan for account in accounts for plan in account.plans}.values())


def _inner(plan: MechanismPlan) -> bool:
    """Whether it is for single records inside what is noised for the site."""
    return plan.layered and plan.unit is Unit.RECORD


def _parts(plans: Iterable[MechanismPlan]) -> list[Partition]:
    return list(dict.fromkeys(plan.partition for plan in plans))


def _common(values: Iterable[T]) -> T | None:
    """The value that all share, if they share one."""
    found = set(values)
    return found.pop() if len(found) == 1 else None

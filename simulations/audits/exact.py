"""The privacy audit of a run whose sums were formed without masks: nobody was charged, so nothing can be verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from common.config import load
from common.errors import Code, Refusal
from common.job import Job
from common.roster import Listed
from common.secagg.rules import Rules
from common.work import work_of
from simulations.audits.intervals import Verdict
from simulations.audits.models import unlike_the_ledgers
from simulations.audits.problems import Finding, Problem
from simulations.audits.record import Anchors, unanchored, unsigned
from simulations.audits.rounds import miscounted
from simulations.audits.runs import Run, figure
from simulations.audits.terms import SLACK
from simulations.planned import planned


@dataclass(frozen=True)
class Announced:
    """`common.roster.Roster` as a record without a manifest tells it: enough to plan, and nobody to ask."""

    size: int
    all_records: int
    most_records: int
    reports: int

    @property
    def ids(self) -> range:
        """1 to the number of sites."""
        return range(1, self.size + 1)

    @property
    def rules(self) -> Rules:
        """Under which nothing is opened; how many reports a sum holds is all that a plan asks for."""
        most = max(2, self.reports)
        return Rules(unmaskers_min=0, quorum_min=2, orgs_min=1, sites_max=most, corrupt_max=0, overlap_min=0)

    def site(self, number: int) -> Listed:
        """Errors: Refusal E_MANIFEST, always."""
        raise Refusal(Code.E_MANIFEST, f"Site {number}", "the record tells of no single site", "Simulate with masks")

    def smallest_sum(self, quorum: int, colluding: int = 0) -> int:
        """See `Roster`: nobody lies here about who is in a sum."""
        del colluding
        return quorum

    def told(self) -> Mapping[str, Any]:
        """See `Roster`."""
        return {"manifest": None, "population": self.size}


def audit(run: Run, anchors: Anchors) -> dict[str, Any]:
    """The keys of `privacy.audit`: never an epsilon, never PASS.

    verdict   INCONCLUSIVE; FAIL if the record is not whole, or is not what its job leads to
    planned   what a deployment of the job would charge, as the audit computes it from the job; None if the record
              says otherwise
    claims    the same in words
    """
    wanted, found = _planned(run)
    found += [
        *unanchored(run, (), anchors),
        *unsigned(run),
        *miscounted(run, ()),
        *_crowded(run),
        *_masked(run),
        *unlike_the_ledgers(run, None, ()),
        *_replayed(run),
    ]
    privacy = run.facts["job"]["privacy"]
    told = None if found else wanted
    return {
        "verdict": (Verdict.FAIL if found else Verdict.INCONCLUSIVE).value,
        "verified": False,
        "problems": sorted({one.code.value for one in found}),
        "findings": [{"code": one.code.value, "site": one.site, "detail": one.detail} for one in found],
        **dict.fromkeys(("epsilon", "this_run", "promised", "limit", "manifest")),
        "delta": privacy.get("delta"),
        "unit": privacy.get("unit"),
        "mode": privacy.get("mode"),
        "noise": run.facts.get("noise"),
        "sites": [],
        "claims": [told["sentence"], *told["conditions"]] if told else [],
        "planned": told,
        "anchors": {"manifest": anchors.manifest is not None, "heads": sorted(anchors.heads)},
    }


def _planned(run: Run) -> tuple[dict[str, Any] | None, list[Finding]]:
    """What the job leads to in a population of this size, and whether the record says the same."""
    told = run.facts["planned"]
    sizes = told["sizes"]
    roster = Announced(run.size, sizes["records"], sizes["largest"], sizes["reports"])
    try:
        with torch.device("meta"):
            work = work_of(load(Job, run.facts["job"], "job"), roster)
            wanted = planned(work)
    except Refusal as refusal:
        return None, [Finding(Problem.JOB_MISMATCH, "", f"{refusal.what}: {refusal.why}")]
    unlike = [name for name in ("delta", "unit", "mode") if told[name] != wanted[name]]
    if not _near(told["epsilon"], wanted["epsilon"]):
        unlike.append("epsilon")
    why = f"planned: its job leads to another {', '.join(unlike)}"
    return wanted, [Finding(Problem.JOB_MISMATCH, "", why)] if unlike else []


def _near(told: float | None, wanted: float | None) -> bool:
    return told == wanted or abs(figure(told) - figure(wanted)) <= SLACK


def _crowded(run: Run) -> Iterator[Finding]:
    """More sites than there are."""
    sums: list[Sequence[str]] = [row["sites"] for row in run.rounds]
    if evaluation := run.facts.get("evaluation"):
        sums.append(evaluation["sites"])
    named = {site for sites in sums for site in sites}
    if len(named) > run.size or (run.listed and not named <= set(run.sites)):
        yield Finding(Problem.ROUNDS_MISMATCH, "", f"its sums name sites beyond its population of {run.size}")


def _masked(run: Run) -> Iterator[Finding]:
    """What only sites with keys leave behind."""
    if run.facts["heads"] or run.ledgers or run.central is not None:
        why = "it holds ledgers, and no site of a population without a manifest could have signed them"
        yield Finding(Problem.RECORD_MISMATCH, "", why)


def _replayed(run: Run) -> Iterator[Finding]:
    if run.facts.get("noise") == "replay":
        yield Finding(Problem.NOISE_REPLAY, "", "the noise of this run can be repeated by whoever knows its seed")

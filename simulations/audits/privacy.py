"""Is every privacy figure of a run true: only what somebody signed is believed, epsilon recomputed from plans alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from common.privacy.claims import claim_of
from simulations.audits import exact
from simulations.audits.accounts import Account, Cost, books_of, cost_of, members_of
from simulations.audits.central import unaccounted
from simulations.audits.intervals import Verdict
from simulations.audits.models import unlike_the_ledgers
from simulations.audits.problems import Finding
from simulations.audits.record import NOTHING, Anchors, unanchored, unsigned
from simulations.audits.rounds import miscounted, strangers, thin, uncharged
from simulations.audits.runs import Run, digest_of
from simulations.audits.terms import (
    ANY_DELTA,
    Terms,
    compare_plans,
    exceeded,
    reported,
    terms_of,
    understated,
    work_or_why,
)

Priced = Sequence[tuple[Account, Cost | None]]


def audit(run: Run, anchors: Anchors = NOTHING) -> dict[str, Any]:
    """Every number of the privacy audit, plain values ready for JSON; an epsilon without bound is None.

    anchors  what the auditor knows from elsewhere. Without them the audit shows that the record is whole and that
             its parts fit each other; that its manifest is the federation's own, only the auditor can tell
    `verified` is true only if nothing was found; only then there is an epsilon and a claim, and each rests on entries
    that sites signed.
    epsilon   of the site that spent most, over all runs in its ledger; so is what a site `recomputed`
    this_run  of the site that spent most on this run alone: what must not exceed `promised`, also named `limit`
    planned   of a run whose sums were formed without masks: see `exact.audit`
    """
    if run.exact:
        return exact.audit(run, anchors)
    members, found = members_of(run)
    books = books_of(run, members)
    accounts = books.accounts
    terms, (work, why) = terms_of(accounts), work_or_why(run)
    costs = [cost_of(account, run.facts["run"], terms.delta or ANY_DELTA) for account in accounts]
    priced = [(account, cost) for account, (cost, _) in zip(accounts, costs, strict=True)]
    found += [finding for _, wrong in costs for finding in wrong]
    found += [
        *books.findings,
        *([why] if why else []),
        *unanchored(run, accounts, anchors),
        *unsigned(run),
        *strangers(run, members),
        *miscounted(run, accounts),
        *uncharged(run, accounts),
        *thin(run, terms),
        *unlike_the_ledgers(run, work, accounts),
        *unaccounted(run, work),
        *compare_plans(run, work, accounts),
        *exceeded(priced, terms),
        *understated(run, priced),
    ]
    return _result(run, terms, priced, found) | {
        "anchors": {"manifest": anchors.manifest is not None, "heads": sorted(anchors.heads)}
    }


def _result(run: Run, terms: Terms, priced: Priced, found: list[Finding]) -> dict[str, Any]:
    void = found or terms.mode == "none"
    worst = max((terms.figure(cost.whole) if cost else math.inf for _, cost in priced), default=0.0)
    here = max((terms.figure(cost.run) if cost else math.inf for _, cost in priced), default=0.0)
    return {
        "verdict": (Verdict.FAIL if found else Verdict.PASS).value,
        "verified": not found,
        "problems": sorted({one.code.value for one in found}),
        "findings": [{"code": one.code.value, "site": one.site, "detail": one.detail} for one in found],
        "epsilon": None if void else _finite(worst),
        "this_run": None if void else _finite(here),
        "promised": terms.limit,
        "limit": terms.limit,
        "delta": terms.delta,
        "unit": terms.unit,
        "mode": terms.mode,
        "noise": terms.noise,
        "manifest": digest_of(run.facts["manifest"]),
        "sites": [_row(run, terms, account, cost) for account, cost in priced],
        "claims": [_claim(account, terms, found) for account, _ in priced],
        "planned": None,
    }


def _claim(account: Account, terms: Terms, found: Iterable[Finding]) -> str:
    """What may be said about one site, all sentences together; nothing while anything stands against the run."""
    against = sorted({one.code.value for one in found})
    if against:
        return f"Site {account.site}: no differential privacy is claimed, because the audit found {', '.join(against)}."
    return " ".join(claim_of(account.site, account.entries, terms.delta or ANY_DELTA).sentences())


def _row(run: Run, terms: Terms, account: Account, cost: Cost | None) -> dict[str, Any]:
    void = cost is not None and bool(cost.whole.void)
    return {
        "site": account.site,
        "epsilon": None if void else _finite(reported(run, account.site)),
        "recomputed": _finite(terms.figure(cost.whole)) if cost else None,
        "run_epsilon": _finite(terms.figure(cost.run)) if cost else None,
        "this_run": {part: _finite(value) for part, value in (cost.run.nominal if cost else {}).items()}
        | ({"site": _finite(cost.run.site)} if cost and cost.run.site is not None else {}),
        "delta": terms.delta,
        "unit": terms.unit,
        "mode": terms.mode,
        "entries": account.lines,
        "head": account.head,
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

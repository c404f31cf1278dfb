"""Is every privacy figure of a run true: chains, signatures and heads verified, epsilon recomputed from plans alone."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from common.config import canonical
from common.errors import Refusal
from common.privacy.accounting import REPORT
from common.privacy.claims import claim_of
from common.privacy.entries import Entry, Kind, Line, check_signature, parse_public, read_chain
from common.privacy.spending import Spending, spending_of
from simulations.audits.intervals import Verdict
from simulations.audits.runs import Run

SLACK = 1e-3  # a site computes with a coarser grid than the audit; more than this below is an understatement


class Problem(StrEnum):
    """Stable names of what an audit can find. Names are never removed and never change their meaning."""

    MANIFEST_INVALID = "MANIFEST_INVALID"  # the manifest does not name every site once, with a key
    LEDGER_MISSING = "LEDGER_MISSING"  # a site took part and its ledger is not there
    CHAIN_BROKEN = "CHAIN_BROKEN"  # a line was changed, removed, added or moved, or names a plan it does not hold
    SIGNATURE_INVALID = "SIGNATURE_INVALID"  # a line was not signed by the site's key of the manifest
    SITE_MISMATCH = "SITE_MISMATCH"  # the ledger is of another site
    HEAD_MISMATCH = "HEAD_MISMATCH"  # the last line is not the one that the coordinator acknowledged
    ENTRY_MISSING = "ENTRY_MISSING"  # something left a site that its ledger does not hold
    EPSILON_UNDERSTATED = "EPSILON_UNDERSTATED"  # the run reported less than its plans cost
    BUDGET_EXCEEDED = "BUDGET_EXCEEDED"  # the run cost more than its job promised
    PLAN_MISMATCH = "PLAN_MISMATCH"  # sites of one run charged different plans, or not the mode of the job
    NOISE_TOO_SMALL = "NOISE_TOO_SMALL"  # a sum had fewer sites than its noise was shared among
    NOISE_REPLAY = "NOISE_REPLAY"  # noise came from a seed: whoever knows it can take it away


@dataclass(frozen=True)
class Finding:
    """One thing that does not hold, where, and how it shows."""

    code: Problem
    site: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class Account:
    """One site's ledger after reading.

    entries   as far as they can be relied on; none of a broken chain
    lines     how many there are, relied on or not
    spent     what all entries cost, recomputed from their plans; None where nothing can be relied on
    run       the same for this run's entries alone
    """

    site: str
    entries: tuple[Entry, ...] = ()
    lines: int = 0
    head: str = ""
    spent: Spending | None = None
    run: Spending | None = None


def audit(run: Run) -> dict[str, Any]:
    """Every number of the privacy audit, plain values ready for JSON; an epsilon without bound is None.

    `verified` is true only if nothing was found; then every claim rests on signed entries alone.
    """
    identities, found = _identities(run)
    accounts = []
    for site, (number, key) in identities.items():
        account, wrong = _account(run, site, number, key)
        accounts.append(account)
        found += wrong
    found += _strangers(run, set(identities))
    found += [*_understated(run, accounts), *_missing(run, accounts), *_plans(run, accounts), *_budgets(run, accounts)]
    return _result(run, accounts, found)


def of_run(entries: Iterable[Entry], run: str) -> list[Entry]:
    """The entries without the reservations of other runs: what is left adds up to what this run cost."""
    return [e for e in entries if e.kind is not Kind.RESERVE or (e.facts is not None and e.facts.run == run)]


def _identities(run: Run) -> tuple[dict[str, tuple[int, bytes]], list[Finding]]:
    """Number and key of every site of the manifest."""
    known: dict[str, tuple[int, bytes]] = {}
    found = []
    for entry in run.facts["manifest"]["sites"]:
        name = str(entry["name"])
        try:
            number, key = int(entry["id"]), bytes.fromhex(entry["identity"])
        except (KeyError, TypeError, ValueError):
            number, key = 0, b""
        if len(key) != 32 or name in known or any(number == n or key == k for n, k in known.values()):
            found.append(Finding(Problem.MANIFEST_INVALID, name, "its name, id or key is repeated or malformed"))
        known.setdefault(name, (number, key))
    return known, found


def _strangers(run: Run, known: set[str]) -> list[Finding]:
    """Sites that the run names anywhere but its manifest does not: nobody could verify what they gave away."""
    named = {str(site) for row in run.rounds for site in row.get("sites") or ()}
    named |= {str(site) for site in run.facts["heads"]} | set(run.ledgers)
    why = "the run names it, and the manifest does not"
    found = [Finding(Problem.MANIFEST_INVALID, site, why) for site in sorted(named - known)]
    return found if known else [*found, Finding(Problem.MANIFEST_INVALID, "", "it names no site")]


def _account(run: Run, site: str, number: int, key: bytes) -> tuple[Account, list[Finding]]:
    """Read and verify one ledger."""
    head = run.facts["heads"].get(site)
    data = run.ledgers.get(site)
    if data is None:
        if head is None and not any(site in entry.get("sites", ()) for entry in run.rounds):
            nothing = spending_of((), _delta(run))
            return Account(site=site, spent=nothing, run=nothing), []
        return Account(site=site), [Finding(Problem.LEDGER_MISSING, site, "no public ledger was written")]
    try:
        lines = parse_public(data)
        entries = tuple(read_chain(lines))
    except Refusal as refusal:
        broken = Finding(Problem.CHAIN_BROKEN, site, f"{refusal.what}: {refusal.why}")
        return Account(site=site, lines=len(data.splitlines())), [broken]
    found = list(_unsigned(site, lines, key))
    if any(entry.site != number for entry in entries):
        found.append(Finding(Problem.SITE_MISMATCH, site, "its entries name another site"))
    last = lines[-1].hash.hex() if lines else ""
    if last != (head or {}).get("head", ""):
        found.append(Finding(Problem.HEAD_MISMATCH, site, "its last line is not the one that was acknowledged"))
    spent, mine = (spending_of(part, _delta(run), REPORT) for part in (entries, of_run(entries, run.facts["run"])))
    return Account(site=site, entries=entries, lines=len(lines), head=last, spent=spent, run=mine), found


def _unsigned(site: str, lines: Iterable[Line], key: bytes) -> Iterator[Finding]:
    """The first line that the site's key did not sign."""
    for seq, line in enumerate(lines):
        try:
            check_signature(line, key, seq)
        except Refusal as refusal:
            yield Finding(Problem.SIGNATURE_INVALID, site, f"{refusal.what}: {refusal.why}")
            return


def _understated(run: Run, accounts: Iterable[Account]) -> Iterator[Finding]:
    """The figure that the run reported of each site, against what the site's plans cost."""
    for account in accounts:
        told, cost = _reported(run, account.site), account.spent.gated if account.spent else 0.0
        if not told >= cost - SLACK:  # a figure that is not a number is one too small
            yield Finding(
                Problem.EPSILON_UNDERSTATED, account.site, f"it reported {told:.4f}, its plans cost {cost:.4f}"
            )


def _missing(run: Run, accounts: Iterable[Account]) -> Iterator[Finding]:
    """What left a site by rounds.jsonl and run.json, without a settled entry of that site."""
    for account in accounts:
        settled = {entry.reserve for entry in account.entries if entry.kind is Kind.SETTLE and entry.steps}
        mine = [entry for entry in _reserved(run, account) if entry.seq in settled]
        charged = {(entry.partition, entry.facts.round) for entry in mine if entry.facts}
        gone = [
            f"{part} in round {number}" for part, number in _left(run, account.site) if (part, number) not in charged
        ]
        if gone:
            listed = ", ".join(gone[:8]) + (" …" if len(gone) > 8 else "")
            yield Finding(Problem.ENTRY_MISSING, account.site, f"nothing was charged for {listed}")


def _left(run: Run, site: str) -> Iterator[tuple[str, int]]:
    """Partition and round of every sum that holds a report of this site."""
    yield from (("train", int(entry["round"])) for entry in run.rounds if site in entry.get("sites", ()))
    evaluation = run.facts.get("evaluation") or {}
    if site in evaluation.get("sites", ()):
        yield "holdout", int(evaluation["round"])


def _plans(run: Run, accounts: Iterable[Account]) -> Iterator[Finding]:
    """What the plans of this run must have in common, and what they may not be."""
    mode = run.facts["job"].get("privacy", {}).get("mode")
    plans = {e.plan_id: e.plan for account in accounts for e in _reserved(run, account) if e.plan}
    replayed = run.facts.get("noise") == "replay" or any(plan.noise == "replay" for plan in plans.values())
    if replayed:
        yield Finding(Problem.NOISE_REPLAY, "", "the noise of this run can be repeated by whoever knows its seed")
    for part in ("train", "holdout"):
        those = [plan for plan in plans.values() if plan.partition == part]
        if len(those) > 1 or any(plan.mode != mode for plan in those):
            yield Finding(Problem.PLAN_MISMATCH, "", f"the sites did not charge one plan of mode {mode} for {part}")
    honest = max((plan.honest for plan in plans.values() if plan.partition == "train"), default=0)
    thin = [entry["round"] for entry in run.rounds if entry.get("sites") and len(entry["sites"]) < honest]
    if thin:
        detail = f"round {thin[0]} summed fewer sites than the {honest} that share its noise"
        yield Finding(Problem.NOISE_TOO_SMALL, "", detail)


def _budgets(run: Run, accounts: Iterable[Account]) -> Iterator[Finding]:
    """What this run cost each site against what its job promised."""
    privacy = run.facts["job"].get("privacy", {})
    promised = {"train": privacy.get("epsilon"), "holdout": privacy.get("evaluation_epsilon")}
    for account in accounts:
        for part, cost in (account.run.nominal if account.run else {}).items():
            limit = promised[part]
            if limit is not None and cost > limit + SLACK:
                detail = f"its {part} records cost {cost:.4f}, the job promised {limit:g}"
                yield Finding(Problem.BUDGET_EXCEEDED, account.site, detail)


def _result(run: Run, accounts: list[Account], found: list[Finding]) -> dict[str, Any]:
    privacy = run.facts["job"].get("privacy", {})
    void = Problem.NOISE_REPLAY in {one.code for one in found} or privacy.get("mode") == "none"
    worst = max((account.spent.epsilon if account.spent else math.inf for account in accounts), default=0.0)
    promised = [privacy[name] for name in ("epsilon", "evaluation_epsilon") if privacy.get(name)]
    return {
        "verdict": (Verdict.FAIL if found else Verdict.PASS).value,
        "verified": not found,
        "problems": sorted({one.code.value for one in found}),
        "findings": [{"code": one.code.value, "site": one.site, "detail": one.detail} for one in found],
        "epsilon": None if void else _finite(worst),
        "limit": max(promised, default=None),
        "delta": privacy.get("delta"),
        "unit": privacy.get("unit"),
        "mode": privacy.get("mode"),
        "noise": run.facts.get("noise"),
        "manifest": hashlib.sha256(canonical(run.facts["manifest"])).hexdigest(),
        "sites": [_row(run, account) for account in accounts],
        "claims": [_claim(run, account, found) for account in accounts],
    }


def _claim(run: Run, account: Account, found: Iterable[Finding]) -> str:
    """What may be said about one site, all sentences together; nothing where a finding stands against it."""
    against = sorted({one.code.value for one in found if one.site in ("", account.site)})
    if against:
        return f"Site {account.site}: no differential privacy is claimed, because the audit found {', '.join(against)}."
    return " ".join(claim_of(account.site, account.entries, _delta(run)).sentences())


def _row(run: Run, account: Account) -> dict[str, Any]:
    privacy = run.facts["job"].get("privacy", {})
    void = account.spent is not None and bool(account.spent.void)
    return {
        "site": account.site,
        "epsilon": None if void else _finite(_reported(run, account.site)),
        "recomputed": _finite(account.spent.epsilon) if account.spent else None,
        "this_run": {part: _finite(cost) for part, cost in (account.run.nominal if account.run else {}).items()},
        "delta": privacy.get("delta"),
        "unit": privacy.get("unit"),
        "mode": privacy.get("mode"),
        "entries": account.lines,
        "head": account.head,
    }


def _reserved(run: Run, account: Account) -> list[Entry]:
    """The reservations of this run."""
    mine = run.facts["run"]
    return [e for e in account.entries if e.kind is Kind.RESERVE and e.facts is not None and e.facts.run == mine]


def _reported(run: Run, site: str) -> float:
    """What the run said that a site has spent; a figure that is missing claims nothing."""
    head: Mapping[str, Any] = run.facts["heads"].get(site) or {}
    value = head.get("epsilon")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.inf


def _delta(run: Run) -> float:
    """The delta of the job; in mode "none", where there is none, any: epsilon is infinite at each."""
    return float(run.facts["job"].get("privacy", {}).get("delta") or 1e-5)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

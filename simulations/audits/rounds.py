"""Rounds as rounds.jsonl tells them, against the manifest's names and the charges that sites signed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from common.privacy.mechanism import Partition
from simulations.audits.accounts import Account
from simulations.audits.problems import Finding, Problem
from simulations.audits.runs import Run
from simulations.audits.terms import Terms


def strangers(run: Run, known: Iterable[str]) -> list[Finding]:
    """Sites that the run names anywhere but its manifest does not: nobody could verify what they gave away."""
    members = set(known)
    named = {site for _, _, sites in _sums(run) for site in sites}
    named |= set(run.facts["heads"]) | set(run.facts.get("fingerprints") or ()) | set(run.ledgers)
    why = "the run names it, and the manifest does not"
    found = [Finding(Problem.MANIFEST_INVALID, site, why) for site in sorted(named - members)]
    return found if members else [*found, Finding(Problem.MANIFEST_INVALID, "", "it names no site")]


def miscounted(run: Run, accounts: Iterable[Account]) -> Iterator[Finding]:
    """Rounds that are missing, repeated or too many, by the job and by what sites were charged for."""
    numbers, asked = [row["round"] for row in run.rounds], run.facts["job"].get("rounds")
    if numbers != list(range(1, len(numbers) + 1)):
        yield Finding(Problem.ROUNDS_MISMATCH, "", "they are not numbered 1, 2, 3, … without gaps and repeats")
    if type(asked) is not int or len(numbers) != asked:
        yield Finding(Problem.ROUNDS_MISMATCH, "", f"it holds {len(numbers)} rounds, and the job asked for {asked}")
    grouped = run.facts["job"].get("aggregation", {}).get("groups", 1) > 1
    for row in run.rounds:
        groups = row.get("groups")
        if (grouped or groups) and sorted(site for group in groups or () for site in group) != sorted(row["sites"]):
            yield Finding(Problem.ROUNDS_MISMATCH, "", f"the groups of round {row['round']} are not its sites")
    for part, number, sites in _sums(run):
        if len(set(sites)) < len(sites):
            yield Finding(Problem.ROUNDS_MISMATCH, "", f"the {part} sum of round {number} names a site twice")
        if part == "holdout" and number not in numbers:
            yield Finding(Problem.ROUNDS_MISMATCH, "", f"counts are of round {number}, which was not played")
    for account in accounts:
        beyond = sorted({number for _, number in account.charged} - set(numbers))
        if beyond:
            detail = f"it was charged for {_listed([f'round {number}' for number in beyond])}, which are not listed"
            yield Finding(Problem.ROUNDS_MISMATCH, account.site, detail)


def uncharged(run: Run, accounts: Iterable[Account]) -> Iterator[Finding]:
    """What left a site by rounds.jsonl and run.json, without a settled entry of that site."""
    for account in accounts:
        left = [(part, number) for part, number, sites in _sums(run) if account.site in sites]
        gone = [f"{part} in round {number}" for part, number in left if (part, number) not in account.charged]
        if gone:
            yield Finding(Problem.ENTRY_MISSING, account.site, f"nothing was charged for {_listed(gone)}")


def thin(run: Run, terms: Terms) -> Iterator[Finding]:
    """The first sum of each kind that had fewer sites than its noise was shared among."""
    for part, honest in {"train": 1, "holdout": 1, **terms.honest}.items():
        few = [number for kind, number, sites in _sums(run) if kind == part and len(set(sites)) < honest]
        if few:
            detail = f"round {few[0]} summed fewer sites for {part} than the {honest} that share its noise"
            yield Finding(Problem.NOISE_TOO_SMALL, "", detail)


def _sums(run: Run) -> Iterator[tuple[Partition, int, Sequence[str]]]:
    """Partition, round and sites of every sum that was opened."""
    for row in run.rounds:
        yield from (("train", row["round"], group) for group in row.get("groups") or [row["sites"]])
    if evaluation := run.facts.get("evaluation"):
        yield "holdout", evaluation["round"], evaluation["sites"]


def _listed(items: Sequence[str]) -> str:
    return ", ".join(items[:8]) + (" …" if len(items) > 8 else "")

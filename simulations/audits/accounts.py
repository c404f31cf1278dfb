"""Every site's ledger as it can be relied on: chain, signatures and head verified, what was charged at which delta."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from common.errors import Refusal
from common.privacy.accounting import LARGEST_SIGMA, MOST_STEPS, REPORT
from common.privacy.chain import read_chain
from common.privacy.entries import Entry, Kind, Line, check_signature, parse_public
from common.privacy.mechanism import MechanismPlan, Partition
from common.privacy.spending import Spending, spending_of
from common.secagg.masks import BITS
from simulations.audits.problems import Finding, Problem
from simulations.audits.runs import Run

MOST_SITES = 2**13  # of a manifest
MOST_LANES = 2.0**40


@dataclass(frozen=True)
class Member:
    """A site as the manifest names it: number and Ed25519 key."""

    number: int
    key: bytes


@dataclass(frozen=True, kw_only=True)
class Account:
    """One site's ledger after reading.

    entries   as far as they can be relied on; none of a broken chain
    places    hash of every line, in hex
    lines     how many there are, relied on or not
    mine      reservations of the audited run
    readable  whether there is a ledger that can be relied on; a site that gave nothing needs none
    """

    site: str
    entries: tuple[Entry, ...] = ()
    places: tuple[str, ...] = ()
    lines: int = 0
    mine: tuple[Entry, ...] = ()
    readable: bool = True

    @property
    def head(self) -> str:
        """Hash of the last line, in hex; empty without one."""
        return self.places[-1] if self.places else ""

    @property
    def plans(self) -> tuple[MechanismPlan, ...]:
        """What the site signed for in the audited run, each plan once."""
        return tuple({entry.plan_id: entry.plan for entry in self.mine if entry.plan}.values())

    @property
    def charged(self) -> frozenset[tuple[Partition, int]]:
        """Partition and round of every charge of the run that was settled: what left the site."""
        settled = {entry.reserve for entry in self.entries if entry.kind is Kind.SETTLE and entry.steps}
        return frozenset(
            (entry.partition, entry.facts.round)
            for entry in self.mine
            if entry.seq in settled and entry.facts and entry.partition
        )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a ledger costs, recomputed from its plans alone: all of it, and the audited run alone."""

    whole: Spending
    run: Spending


@dataclass(frozen=True)
class Books:
    """The ledgers of all sites of the manifest, and what is wrong with them."""

    accounts: tuple[Account, ...]
    findings: tuple[Finding, ...] = field(default=())


def members_of(run: Run) -> tuple[dict[str, Member], list[Finding]]:
    """Number and key of every site of the manifest, by name."""
    known: dict[str, Member] = {}
    found = []
    for entry in run.facts["manifest"]["sites"]:
        name, number, key = entry["name"], entry.get("id"), _key(entry.get("identity"))
        good = type(number) is int and len(key) == 32
        if not good or name in known or any(number == one.number or key == one.key for one in known.values()):
            found.append(Finding(Problem.MANIFEST_INVALID, name, "its name, id or key is repeated or malformed"))
        known.setdefault(name, Member(number if type(number) is int else 0, key))
    return known, found


def books_of(run: Run, members: Mapping[str, Member]) -> Books:
    """Every ledger read and verified."""
    accounts, found = [], []
    for site, member in members.items():
        account, wrong = _account(run, site, member)
        accounts.append(account)
        found += wrong
    return Books(tuple(accounts), tuple(found))


def cost_of(account: Account, run: str, delta: float) -> tuple[Cost | None, list[Finding]]:
    """What the ledger costs at `delta`; None where nothing can be relied on, and why if it is a plan's fault."""
    if not account.readable:
        return None, []
    try:
        if not all(_sound(entry) for entry in account.entries if entry.plan):
            raise ValueError
        whole = spending_of(account.entries, delta, REPORT)
        return Cost(whole=whole, run=spending_of(_of_run(account.entries, run), delta, REPORT)), []
    except (Refusal, ArithmeticError, ValueError):
        return None, [Finding(Problem.PLAN_INVALID, account.site, "a plan that it signed has no cost")]


def _sound(entry: Entry) -> bool:
    """Whether a charge is one that accounting is made for. A site may sign anything; an audit must still end."""
    plan = entry.plan
    return plan is not None and all(
        (
            0 < plan.sampling_rate <= 1,
            0 <= plan.noise_multiplier <= LARGEST_SIGMA,
            1 <= plan.honest <= MOST_SITES,
            1 <= plan.dimension <= MOST_LANES,
            1 <= entry.steps <= MOST_STEPS,
            0 < plan.scale <= MOST_LANES,
            0 <= plan.record_bound <= MOST_LANES,
            plan.bits in (0, *BITS),
            bool(plan.bits) or plan.mechanism != "skellam",
        )
    )


def _account(run: Run, site: str, member: Member) -> tuple[Account, list[Finding]]:
    """Read and verify one ledger."""
    head, data = run.facts["heads"].get(site), run.ledgers.get(site)
    if data is None:
        if head is None and not any(site in row["sites"] for row in run.rounds):
            return Account(site=site), []
        return Account(site=site, readable=False), [Finding(Problem.LEDGER_MISSING, site, _missing(run, site))]
    try:
        lines = parse_public(data)
        entries = tuple(read_chain(lines))
    except Refusal as refusal:
        broken = Finding(Problem.CHAIN_BROKEN, site, f"{refusal.what}: {refusal.why}")
        return Account(site=site, lines=len(data.splitlines()), readable=False), [broken]
    account = Account(
        site=site,
        entries=entries,
        places=tuple(line.hash.hex() for line in lines),
        lines=len(lines),
        mine=tuple(entry for entry in _of_run(entries, run.facts["run"]) if entry.kind is Kind.RESERVE),
    )
    found = list(_unsigned(site, lines, member.key))
    if any(entry.site != member.number for entry in entries):
        found.append(Finding(Problem.SITE_MISMATCH, site, "its entries name another site"))
    if account.head != (head or {}).get("head", ""):
        found.append(Finding(Problem.HEAD_MISMATCH, site, "its last line is not the one that was acknowledged"))
    return account, found


def _missing(run: Run, site: str) -> str:
    """What the record itself says of a ledger that is not there."""
    told = {one["site"]: one["code"] for one in run.facts.get("ledgers_missing") or ()}
    why = f"; the coordinator could not have it when the run ended ({told[site]})" if site in told else ""
    return f"no public ledger is there{why}"


def _of_run(entries: Iterable[Entry], run: str) -> list[Entry]:
    """The entries without the reservations of other runs: what is left adds up to what this run cost."""
    return [e for e in entries if e.kind is not Kind.RESERVE or (e.facts is not None and e.facts.run == run)]


def _unsigned(site: str, lines: Iterable[Line], key: bytes) -> Iterator[Finding]:
    """The first line that the site's key did not sign."""
    for seq, line in enumerate(lines):
        try:
            check_signature(line, key, seq)
        except Refusal as refusal:
            yield Finding(Problem.SIGNATURE_INVALID, site, f"{refusal.what}: {refusal.why}")
            return


def _key(text: object) -> bytes:
    try:
        return bytes.fromhex(text) if isinstance(text, str) else b""
    except ValueError:
        return b""

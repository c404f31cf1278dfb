"""CPU seconds of a site's gate behind ten thousand charges: opening and verifying the ledger, then deciding. JSON.

Each row is the least of several fresh processes that have loaded what an agent loads. Decisions are of one release, as
the agent takes them: is it affordable, then the charge on disk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[2]))

import client.session  # noqa: F401  # what an agent loads before it opens a ledger
from client.guard import Guard
from client.limits import Limit
from common.identity import Signer
from common.privacy.chain import verify_public
from common.privacy.entries import Entry, Facts, Kind, signed
from common.privacy.ledger import Owner, new_entry, open_ledger
from common.privacy.mechanism import MechanismPlan
from common.privacy.plan import PrivacySettings, plan_training

CHARGES, DECISIONS, PROCESSES = 10_000, 8, 3
OWNER, SIGNER, VERSIONS = Owner(3, "ab" * 16), Signer.from_seed(bytes(32)), {"hushfed": "0.1.0", "torch": "2.13.0"}
LIMIT = Limit(40.0, 1e-5)
CASES = ((1, False), (1, True), (4, True))  # plans, and whether every charge is settled
T = TypeVar("T")


def plans(count: int) -> list[MechanismPlan]:
    """Plans whose releases, all of CHARGES together, cost about what a site may allow."""
    found = []
    for number in range(count):
        settings = PrivacySettings(
            mode="M1", unit="record", epsilon=6.0 + 0.1 * number, delta=1e-5, clip=1.0, sampling_rate=0.01,
            spare_rounds=0, evaluation_epsilon=1.0,
        )  # fmt: skip
        place: dict[str, Any] = {"dimension": 10_000, "quorum": 2, "sites": 3, "records": 60_000}
        found.append(plan_training(settings, rounds=CHARGES, local_steps=5, **place))
    return found


def entries(given: list[MechanismPlan], charges: int, *, settled: bool) -> Iterator[Entry]:
    """A ledger's entries after its first one, numbers and owner left out."""
    for number in range(charges):
        plan = given[number * len(given) // charges]
        facts = Facts(run="aa" * 16, job="bb" * 32, round=number, number=number, order="cc" * 32, model="dd" * 32)
        cost = {"epsilon_before": 1.0, "epsilon_after": 1.1, "budget": LIMIT.epsilon, "delta": LIMIT.delta}
        yield new_entry(
            Kind.RESERVE, facts=facts, partition=plan.partition, plan_id=plan.plan_id, plan=plan, steps=plan.steps,
            versions=VERSIONS, **cost,
        )  # fmt: skip
        if settled:
            yield new_entry(Kind.SETTLE, reserve=1 + 2 * number, steps=plan.steps, output="ee" * 32)


def written(path: Path, given: list[MechanismPlan], charges: int, *, settled: bool) -> None:
    """A ledger at `path`, line by line as a site writes it, in one transaction."""
    from dataclasses import replace

    with open_ledger(path, OWNER, SIGNER, VERSIONS) as ledger:
        head, rows = ledger.head, []
        for seq, entry in enumerate(entries(given, charges, settled=settled), 1):
            whole = replace(entry, seq=seq, site=OWNER.site, dataset=OWNER.dataset, wall=1e9 + seq, elapsed=float(seq))
            line = signed(whole, head, SIGNER)
            head = line.hash
            rows.append((seq, line.body, line.hash, line.signature))
        ledger._connection.execute("BEGIN")
        ledger._connection.executemany("INSERT INTO lines VALUES (?, ?, ?, ?)", rows)
        ledger._connection.execute("COMMIT")


def measured(path: Path) -> dict[str, float]:
    """One agent's start and its decisions, in this process; CPU seconds."""
    took: dict[str, float] = {}

    def timed(name: str, act: Callable[[], T]) -> T:
        begun = time.process_time()
        found = act()
        took[name] = min(took.get(name, float("inf")), time.process_time() - begun)
        return found

    ledger = timed("opened_and_verified", lambda: open_ledger(path, OWNER, SIGNER))
    guard, plan = Guard(ledger, LIMIT, VERSIONS), ledger.charges[-1][0]
    timed("priced_at_start", lambda: guard.spent)

    def decide() -> int:
        guard.refuse_beyond(plan)
        return guard.reserve(plan, Facts(run="aa" * 16)).seq

    timed("first_decision", decide)
    for _ in range(DECISIONS):
        seq = timed("decision", decide)
        settle = new_entry(Kind.SETTLE, reserve=seq, steps=plan.steps, output="ee" * 32)
        timed("settling", lambda settle=settle: (ledger.append(settle), guard.spent))
    public = ledger.public_lines()
    timed("verified_by_others", lambda: verify_public(public, SIGNER.public))
    ledger.close()
    return {**took, "entries": len(public.splitlines())}


def row(number: int, charges: int, *, settled: bool) -> dict[str, Any]:
    """The least of several processes, each on a copy of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        written(path, plans(number), charges, settled=settled)
        found = []
        for _ in range(PROCESSES):
            words = [sys.executable, __file__, "--measure", str(path)]
            told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            found.append(json.loads(told.splitlines()[-1]))
    least = {name: round(min(one[name] for one in found), 4) for name in found[0] if name != "entries"}
    return {"plans": number, "charges": charges, "entries": found[0]["entries"], "settled": settled, **least}


def main() -> None:
    """Print {"rows": […]}; with --measure, what one process measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--charges", type=int, default=CHARGES)
    parser.add_argument("--measure", type=Path, help="measure the ledger here, and nothing else")
    asked = parser.parse_args()
    if asked.measure:
        result: dict[str, Any] = measured(asked.measure)
    else:
        result = {"rows": [row(number, asked.charges, settled=settled) for number, settled in CASES]}
    sys.stdout.write(json.dumps(result, indent=None if asked.measure else 1) + "\n")


if __name__ == "__main__":
    main()

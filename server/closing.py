"""The end of a run: the sites' ledgers as far as they can be had, and the record that names those that cannot."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.config import plain
from common.errors import Code
from common.messages import LedgerOrder, LedgerReply
from common.privacy.entries import parse_public
from common.versions import versions
from common.work import Work
from server.checkpoints import State
from server.gathering import Answer, Questions
from server.ledgers import brought_up_to_date, fault_of
from server.records import SCHEMA, Record

TURNS = 2  # a site that is being started anew is asked once more


@dataclass(frozen=True)
class Collected:
    """What sites gave when a run was over.

    state    with the heads of their ledgers
    ledgers  public lines by site name      marks  of their data, hex by site name
    missing  why there is no ledger that verifies, by site id; of sites that owe one
    """

    state: State
    ledgers: Mapping[str, bytes]
    marks: Mapping[str, str]
    missing: Mapping[int, Code]


@dataclass(frozen=True, kw_only=True)
class Before:
    """What is known before sites are asked for their ledgers.

    heads    that earlier runs acknowledged, by site id
    answers  that an earlier ending of this very run already had; those sites are not asked again
    """

    heads: Mapping[int, str]
    answers: Sequence[Answer] = ()


def collect(
    work: Work, questions: Questions, run_id: bytes, state: State, *, before: Before, pause: float
) -> Collected:
    """Every site's public ledger that can be had now.

    pause  seconds before silent sites are asked once more
    """
    order, known = LedgerOrder(run=run_id, job=work.job.to_bytes()), before.heads
    found = Collected(state, {}, {}, dict.fromkeys(_debtors(work, state), Code.SITE_UNREACHABLE))
    for answer in before.answers:
        found = _with(found, work, answer, known)
    asked = questions.sites.present() - {answer.site for answer in before.answers}
    for turn in range(TURNS):
        for answer in questions.ask(order, asked, work.job.aggregation.deadline_seconds):
            found = _with(found, work, answer, known)
        silent = {site for site, code in found.missing.items() if code is Code.SITE_UNREACHABLE}
        if not silent or turn == TURNS - 1:
            break
        questions.clock.sleep(pause)
        asked = questions.sites.present() & silent
    return found


def _debtors(work: Work, state: State) -> list[int]:
    """Sites whose ledger an audit asks for: those that gave something, or were charged."""
    counted = {name for row in state.rounds for name in row["sites"]}
    return [site.id for site in work.manifest.sites if site.name in counted or site.id in state.heads]


def _with(found: Collected, work: Work, answer: Answer, known: Mapping[int, str]) -> Collected:
    site, reply, missing = answer.site, answer.reply, dict(found.missing)
    if not isinstance(reply, LedgerReply):
        if site in missing:
            missing[site] = answer.code or Code.MESSAGE_INVALID
        return replace(found, missing=missing)
    name, state = work.manifest.site(site).name, brought_up_to_date(found.state, work, site, reply, known)
    missing.pop(site, None)
    if state is found.state:  # nothing of it was believed
        missing[site] = fault_of(work, site, reply)
    marks = {**found.marks, name: reply.data.hex()} if reply.data else found.marks
    return Collected(state, {**found.ledgers, name: reply.entries}, marks, missing)


def record_of(work: Work, run_id: bytes, found: Collected) -> Record:
    """The record of a run that is over; not yet signed."""
    missing = [
        {"site": work.roster.site(site).name, "code": code.value} for site, code in sorted(found.missing.items())
    ]
    table = _run_table(work, run_id, found.state)
    return Record(
        run={**table, "fingerprints": found.marks, "ledgers_missing": missing},
        rounds=found.state.rounds,
        layout=work.layout,
        parameters=found.state.parameters,
        ledgers=found.ledgers,
    )


def earlier_answers(work: Work, result: Path) -> list[Answer]:
    """The ledgers in an earlier record of this run, of the sites that it does not call missing."""
    if not _lacks_ledgers(result):
        return []
    table, found = json.loads((result / "run.json").read_bytes()), []
    lost, marks = {one["site"] for one in table["ledgers_missing"]}, table["fingerprints"]
    for site in work.manifest.sites:
        file = result / "ledgers" / f"{site.name}.jsonl"
        if site.name not in lost and file.exists():
            lines, mark = file.read_bytes(), marks.get(site.name)
            data = bytes.fromhex(mark) if mark else None
            head = parse_public(lines)[-1].hash
            found.append(Answer(site.id, LedgerReply(order=bytes(32), entries=lines, head=head, data=data), None))
    return found


def make_room(result: Path) -> None:
    """Put an earlier record of the same run aside if ledgers are missing from it; a whole one stays where it is."""
    if _lacks_ledgers(result):
        aside = result.with_name(f"{result.name}.before")
        shutil.rmtree(aside, ignore_errors=True)
        result.rename(aside)


def _lacks_ledgers(result: Path) -> bool:
    file = result / "run.json"
    return file.exists() and bool(json.loads(file.read_bytes()).get("ledgers_missing"))


def _run_table(work: Work, run_id: bytes, state: State) -> dict[str, Any]:
    """run.json."""

    def name(site: int) -> str:
        return work.roster.site(site).name

    heads = {
        name(site): {"head": head, "epsilon": _shown(state.epsilon.get(site))} for site, head in state.heads.items()
    }
    return {
        "schema": SCHEMA,
        "status": "completed",
        "run": run_id.hex(),
        "job": plain(work.job),
        **work.roster.told(),
        "versions": versions(),
        "seeds": {"job": work.job.seed},
        "heads": heads,
        "refusals": [{"site": name(site), "code": code} for site, code in sorted(state.excluded.items())],
        "spent_attempts": state.spent,
        "evaluation": state.evaluation,
        "evaluation_failure": state.evaluation_failure,
        "noise": work.job.privacy.noise,
        "accuracy": None,
        "baselines": None,
        "seconds": round(state.seconds, 3),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _shown(epsilon: float | None) -> float | None:
    """An epsilon as JSON shows it: nothing where there is no guarantee, 0 for a site that was never charged."""
    return epsilon if epsilon is not None and math.isfinite(epsilon) else (0.0 if epsilon is None else None)

"""Writes a run directory as a finished run leaves it, with real ledgers and signatures: 4 sites, mode M2."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from common.config import plain
from common.identity import Signer
from common.job import Job
from common.parameters import Flat, named
from common.privacy.entries import GENESIS, Entry, Facts, Kind, Line, signed
from common.privacy.plan import MechanismPlan, PrivacySettings
from common.privacy.spending import spending_of
from common.secagg.manifest import Manifest, SiteEntry, manifest_table, sealed
from common.secagg.rules import Rules
from common.statement import signed as signed_statement
from common.statement import statement_of
from common.work import Work, work_of
from simulations.audits.privacy import audit
from simulations.audits.record import Anchors
from simulations.audits.runs import read_run
from simulations.scenario import example, read_scenario

RUN = "5f" * 16
ROUNDS = 6  # of a run of which little needs to be seen
NAMES = ("clinic-a", "clinic-b", "clinic-c", "clinic-d")
SIGNERS = {
    name: Signer.from_seed(hashlib.sha256(name.encode()).digest()) for name in (*NAMES, "coordinator", "governance")
}
SETTINGS = PrivacySettings(
    mode="M2", unit="record", epsilon=3.0, delta=1e-4, clip=1.0, sampling_rate=0.5, spare_rounds=4, colluding=1,
    metric_share=0.1, loss_bound=4.0, evaluation_epsilon=3.0,
)  # fmt: skip
MANIFEST = Manifest(
    federation="four-clinics", version=1, coordinator=SIGNERS["coordinator"].public, unmaskers=(1, 2, 3),
    rules=Rules(unmaskers_min=2, quorum_min=2, orgs_min=2, sites_max=4, corrupt_max=1, overlap_min=0),
    sites=tuple(
        SiteEntry(id=i, name=name, org=f"Hospital {name[-1].upper()}", identity=SIGNERS[name].public,
                  node=f"ssh-ed25519 AAAA{i}", nominal_records=80)
        for i, name in enumerate(NAMES, 1)
    ),
)  # fmt: skip

Spoil = Callable[[str, Entry], Entry]


def write_run(
    folder: Path,
    *,
    rounds: int = 40,
    change: Callable[[dict[str, Any]], None] | None = None,
    noise: str = "system",
    spoil: Spoil = lambda _site, entry: entry,
    earlier: int = 0,
) -> Path:
    """A completed run in `folder`, signed by its coordinator.

    change  edits run.json before it is signed      noise  "replay" marks the plans
    spoil   changes an entry before its site signs it      earlier  rounds of another run, charged before this one
    """
    work = work_of(job_of(rounds, noise), MANIFEST)
    train = work.training
    chains = {name: _chain(work, name, rounds, spoil, earlier) for name in NAMES}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ledgers").mkdir(exist_ok=True)
    for name, lines in chains.items():
        (folder / "ledgers" / f"{name}.jsonl").write_bytes(b"".join(line.public() for line in lines))
    curve = [spent(train, earlier + i) for i in range(rounds + 1)]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(_round(i, curve)) + "\n" for i in range(1, rounds + 1)))
    (folder / "model.safetensors").write_bytes(save(named(work.layout, parameters_after(rounds, work.layout.size))))
    facts = _facts(work.job, {name: lines[-1] for name, lines in chains.items()}, earlier)
    if change:
        change(facts)
    (folder / "run.json").write_text(json.dumps(facts))
    sign(folder)
    return folder


def job_of(rounds: int, noise: str = "system") -> Job:
    """The job of the run."""
    job = read_scenario(example("clinics")).job
    aggregation = replace(job.aggregation, quorum=3)
    privacy = replace(SETTINGS, noise=noise)
    return replace(
        job, name="diabetes-progression", seed=7, rounds=rounds, privacy=privacy, aggregation=aggregation
    )  # fmt: skip


def sign(folder: Path) -> None:
    """Sign whatever the folder now says, as a coordinator can that lies."""
    facts = json.loads((folder / "run.json").read_text())
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    statement = statement_of(facts, rows, (folder / "model.safetensors").read_bytes())
    (folder / "run.json").write_text(json.dumps(facts | signed_statement(statement, SIGNERS["coordinator"])))


def parameters_after(rounds: int, size: int) -> Flat:
    """The invented model after so many rounds."""
    return np.random.default_rng([9, rounds]).normal(size=size).astype(np.float32)


def edit(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change run.json as somebody without any key can."""
    facts = json.loads((run / "run.json").read_text())
    change(facts)
    (run / "run.json").write_text(json.dumps(facts))


def edit_rounds(run: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """The same with rounds.jsonl."""
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    change(rows)
    (run / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def problems(run: Path, anchors: Anchors | None = None) -> set[str]:
    """What the audit finds; and nothing may be claimed of a run in which anything was."""
    found = audit(read_run(run), anchors or Anchors())
    assert found["verified"] is not bool(found["problems"])
    assert found["verdict"] == ("FAIL" if found["problems"] else "PASS")
    if found["problems"]:
        assert found["epsilon"] is None
        assert all("no differential privacy is claimed" in claim for claim in found["claims"])
    json.dumps(found, allow_nan=False)
    return set(found["problems"])


def signed_manifest() -> bytes:
    """The manifest's file as governance gives it out."""
    return sealed(MANIFEST, SIGNERS["governance"])


@lru_cache(maxsize=256)
def spent(plan: MechanismPlan, releases: int) -> float:
    """Epsilon after so many releases, a little pessimistic as sites compute it."""
    entry = Entry(seq=1, kind=Kind.RESERVE, site=1, dataset="", wall=0, elapsed=0, plan_id=plan.plan_id, plan=plan,
                  partition=plan.partition, steps=max(1, releases))  # fmt: skip
    return spending_of([entry], 1e-4).gated + 1e-4 if releases else 0.0


def present(name: str, number: int) -> bool:
    """clinic-d misses a few rounds, so that there is something to see."""
    return name != "clinic-d" or number % 9 != 5


def _chain(work: Work, name: str, rounds: int, spoil: Spoil, earlier: int) -> list[Line]:
    lines: list[Line] = []
    train, counts = work.training, work.counting

    def add(kind: Kind, **fields: Any) -> None:
        entry = Entry(seq=len(lines), kind=kind, site=NAMES.index(name) + 1, dataset="ab" * 16,
                      wall=1.7e9 + len(lines), elapsed=float(len(lines)), **fields)  # fmt: skip
        lines.append(signed(spoil(name, entry), lines[-1].hash if lines else GENESIS, SIGNERS[name]))

    add(Kind.OPEN, versions={"hushfed": "0.1.0"})
    works = [("6e" * 16, train, n, n - 1) for n in range(1, earlier + 1)]
    works += [(RUN, train, n, n - 1) for n in range(1, rounds + 1) if present(name, n)] + [
        (RUN, counts, rounds, rounds)
    ]
    for run, plan, number, before in works:
        model = hashlib.sha256(parameters_after(before, work.layout.size).tobytes()).hexdigest()
        facts = Facts(run=run, job=work.job.digest().hex(), round=number, number=number, model=model)
        add(Kind.RESERVE, facts=facts, partition=plan.partition, plan_id=plan.plan_id, plan=plan, steps=plan.steps)
        add(Kind.SETTLE, steps=plan.steps, reserve=len(lines) - 1, output="cd" * 32)
    return lines


def _round(number: int, curve: list[float]) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    sites = [name for name in NAMES if present(name, number)]
    took = {name: sum(present(name, i) for i in range(1, number + 1)) for name in NAMES}
    missing = "BUDGET_EXHAUSTED" if number == 5 else "SITE_UNREACHABLE"
    return {
        "round": number,
        "loss": 0.69 - 0.16 * (1 - math.exp(-number / 9)) + float(rng.normal(0, 0.012)),
        "accuracy": 0.52 + 0.21 * (1 - math.exp(-number / 9)) + float(rng.normal(0, 0.02)),
        "exact_accuracy": 0.53 + 0.211 * (1 - math.exp(-number / 8)),
        "sites": sites,
        "refusals": [{"site": name, "code": missing} for name in NAMES if name not in sites],
        "seconds": 0.31 + 0.01 * (number % 5),
        "epsilon": {name: curve[took[name]] for name in NAMES},
        "bytes": dict.fromkeys(sites, 2048),
    }


def _facts(job: Job, heads: dict[str, Line], earlier: int) -> dict[str, Any]:
    work = work_of(job, MANIFEST)
    train, counts = work.training, work.counting
    took = {name: sum(present(name, i) for i in range(1, job.rounds + 1)) for name in NAMES}
    figures = {name: max(spent(train, earlier + took[name]), spent(counts, 1)) for name in NAMES}
    return {
        "schema": 1, "status": "completed", "run": RUN, "ended": "2026-05-04T09:30:00+00:00", "seconds": 14.2,
        "job": plain(job),
        "versions": {"hushfed": "0.1.0", "flwr": "1.41.0", "torch": "2.13.0", "dp-accounting": "0.6.0"},
        "seeds": {"job": 7, "split": 11},
        "fingerprints": {name: hashlib.sha256(b"data" + name.encode()).hexdigest() for name in NAMES},
        "manifest": manifest_table(MANIFEST),
        "heads": {name: {"head": line.hash.hex(), "epsilon": figures[name]} for name, line in heads.items()},
        "evaluation": _evaluation(job, counts),
        "accuracy": 0.741, "noise": job.privacy.noise, "refusals": [],
        "baselines": {
            "pooled_accuracy": 0.757, "alone_accuracy": 0.6805, "chance": 0.53,
            "alone": {"clinic-a": 0.71, "clinic-b": 0.664, "clinic-c": 0.69, "clinic-d": 0.658},
        },
    }  # fmt: skip


def _evaluation(job: Job, counts: MechanismPlan) -> dict[str, Any]:
    """Counts of about 1800 held-out records, with the noise of the four sites' plans."""
    rng = np.random.default_rng(3)
    sd = counts.sigma * 2
    sizes = [180, 260, 240, 0, 220, 300, 280, 0, 0, 0, 0, 0]
    table = []
    for cell, size in enumerate(sizes):
        positive = 0.38 + 0.02 * (cell % 4)
        rows = [
            [size * (1 - positive) * 0.78, size * (1 - positive) * 0.22],
            [size * positive * 0.3, size * positive * 0.7],
        ]
        table.append([[round(value + float(rng.normal(0, sd))) for value in row] for row in rows])
    return {
        "groups": ["sex", "age"], "cells": list(job.data.groups), "classes": 2, "bins": 2, "counts": table,
        "noise_sd": sd, "threshold_bin": 1, "sites": list(NAMES), "round": job.rounds,
    }  # fmt: skip

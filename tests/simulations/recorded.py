"""Writes a run directory as a finished run leaves it, with real ledgers: 4 sites, mode M2, invented curves."""

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

from common.config import plain
from common.identity import Signer
from common.privacy.entries import GENESIS, Entry, Facts, Kind, Line, signed
from common.privacy.plan import MechanismPlan, PrivacySettings, plan_counts, plan_training
from common.privacy.spending import spending_of

RUN = "5f" * 16
NAMES = ("clinic-a", "clinic-b", "clinic-c", "clinic-d")
SIGNERS = {name: Signer.from_seed(hashlib.sha256(name.encode()).digest()) for name in NAMES}
SETTINGS = PrivacySettings(
    mode="M2", unit="record", epsilon=3.0, delta=1e-4, clip=1.0, sampling_rate=0.5, spare_rounds=4, colluding=1,
    metric_share=0.1, loss_bound=4.0, evaluation_epsilon=3.0,
)  # fmt: skip
CELLS = [f"sex={sex}, age={age}" for sex in ("female", "male", "unknown") for age in ("<40", "40-60", "60+", "unknown")]


def write_run(
    folder: Path, *, rounds: int = 40, change: Callable[[dict[str, Any]], None] | None = None, noise: str = "system"
) -> Path:
    """A completed run in `folder`. change: edits run.json before it is written; noise: "replay" marks the plans."""
    settings = replace(SETTINGS, noise=noise)
    train = plan_training(settings, rounds=rounds, local_steps=1, dimension=11, quorum=3, sites=4, records=330)
    counts = plan_counts(settings, cells=24, releases=1, quorum=3)
    chains = {name: _chain(i + 1, name, train, counts, rounds) for i, name in enumerate(NAMES)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ledgers").mkdir(exist_ok=True)
    for name, lines in chains.items():
        (folder / "ledgers" / f"{name}.jsonl").write_bytes(b"".join(line.public() for line in lines))
    curve = [spent(train, i) for i in range(rounds + 1)]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(_round(i, curve)) + "\n" for i in range(1, rounds + 1)))
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    facts = _facts(settings, rounds, {name: lines[-1] for name, lines in chains.items()}, train, counts)
    if change:
        change(facts)
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


@lru_cache(maxsize=256)
def spent(plan: MechanismPlan, releases: int) -> float:
    """Epsilon after so many releases, a little pessimistic as sites compute it."""
    entry = Entry(seq=1, kind=Kind.RESERVE, site=1, dataset="", wall=0, elapsed=0, plan_id=plan.plan_id, plan=plan,
                  partition=plan.partition, steps=max(1, releases))  # fmt: skip
    return spending_of([entry], 1e-4).gated + 1e-4 if releases else 0.0


def present(name: str, number: int) -> bool:
    """clinic-d misses a few rounds, so that there is something to see."""
    return name != "clinic-d" or number % 9 != 5


def _chain(site: int, name: str, train: MechanismPlan, counts: MechanismPlan, rounds: int) -> list[Line]:
    lines: list[Line] = []

    def add(kind: Kind, **fields: Any) -> None:
        entry = Entry(seq=len(lines), kind=kind, site=site, dataset="ab" * 16, wall=1.7e9 + len(lines),
                      elapsed=float(len(lines)), **fields)  # fmt: skip
        lines.append(signed(entry, lines[-1].hash if lines else GENESIS, SIGNERS[name]))

    add(Kind.OPEN, versions={"hushfed": "0.1.0"})
    works = [(train, n) for n in range(1, rounds + 1) if present(name, n)] + [(counts, rounds)]
    for plan, number in works:
        facts = Facts(run=RUN, round=number, number=number)
        add(Kind.RESERVE, facts=facts, partition=plan.partition, plan_id=plan.plan_id, plan=plan, steps=plan.steps)
        add(Kind.SETTLE, facts=facts, partition=plan.partition, plan_id=plan.plan_id, steps=plan.steps,
            reserve=len(lines) - 1, output="cd" * 32)  # fmt: skip
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


def _facts(
    settings: PrivacySettings, rounds: int, heads: dict[str, Line], train: MechanismPlan, counts: MechanismPlan
) -> dict[str, Any]:
    took = {name: sum(present(name, i) for i in range(1, rounds + 1)) for name in NAMES}
    figures = {name: max(spent(train, took[name]), spent(counts, 1)) for name in NAMES}
    return {
        "schema": 1, "status": "completed", "run": RUN, "ended": "2026-05-04T09:30:00+00:00", "seconds": 14.2,
        "job": {
            "name": "diabetes-progression", "seed": 7, "rounds": rounds, "dataset": "clinics",
            "model": {"name": "logistic", "settings": {}}, "privacy": plain(settings),
            "aggregation": {"strategy": "fedsgd", "secure": "alm-v1", "quorum": 3},
        },
        "versions": {"hushfed": "0.1.0", "flwr": "1.41.0", "torch": "2.13.0", "dp-accounting": "0.6.0"},
        "seeds": {"job": 7, "split": 11},
        "fingerprints": {name: hashlib.sha256(b"data" + name.encode()).hexdigest() for name in NAMES},
        "manifest": {
            "federation": "four-clinics", "version": 1,
            "sites": [
                {"id": i + 1, "name": name, "org": f"Hospital {name[-1].upper()}", "nominal_records": 80,
                 "identity": SIGNERS[name].public.hex()}
                for i, name in enumerate(NAMES)
            ],
        },
        "heads": {name: {"head": line.hash.hex(), "epsilon": figures[name]} for name, line in heads.items()},
        "evaluation": _evaluation(counts, rounds),
        "accuracy": 0.741, "noise": settings.noise, "refusals": [],
        "baselines": {
            "pooled_accuracy": 0.757, "alone_accuracy": 0.6805, "chance": 0.53,
            "alone": {"clinic-a": 0.71, "clinic-b": 0.664, "clinic-c": 0.69, "clinic-d": 0.658},
        },
    }  # fmt: skip


def _evaluation(counts: MechanismPlan, rounds: int) -> dict[str, Any]:
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
        "groups": ["sex", "age"], "cells": CELLS, "classes": 2, "bins": 2, "counts": table, "noise_sd": sd,
        "threshold_bin": 1, "sites": list(NAMES), "round": rounds,
    }  # fmt: skip

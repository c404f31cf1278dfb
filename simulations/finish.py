"""From the coordinator's result to the run directory that people read: yardsticks, audits, report, all or nothing."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load_file, save

from common.errors import Code, Refusal
from common.job import Job
from common.parameters import Flat
from common.statement import signed, statement_of
from common.work import Work, model_of
from deploy.provision import FederationFolder
from simulations.adversaries.damage import damage
from simulations.audits.runs import HISTORY
from simulations.backstage import Backstage, backstage_of
from simulations.course import Course
from simulations.planned import planned
from simulations.rebuilt import told
from simulations.report.page import build
from simulations.scenario import Scenario
from simulations.turnout import printed, with_answers
from simulations.turnout import told as turnout_of
from simulations.yardsticks import accuracy, measure


def refuse_to_overwrite(out: Path) -> None:
    """Refuse a folder that holds anything or cannot be made, before any work is done.

    Errors: Refusal FILE_EXISTS, FILE_UNWRITABLE.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refusal(Code.FILE_EXISTS, f"{out} not used", "it is not empty", "Name a new folder with --out")
    above = next(place for place in out.absolute().parents if place.exists())
    if not (above.is_dir() and os.access(above, os.W_OK | os.X_OK)):
        raise Refusal(Code.FILE_UNWRITABLE, f"{out} not used", f"{above} cannot be written", "Name another place")


class Played(Protocol):
    """What is left of a world that was played, as `simulations.world.Finished` tells it."""

    @property
    def federation(self) -> FederationFolder | Backstage: ...
    @property
    def record(self) -> Path: ...
    @property
    def work(self) -> Work: ...
    @property
    def told(self) -> Mapping[str, str]: ...
    @property
    def course(self) -> Course | None: ...
    @property
    def unattacked(self) -> Flat | None: ...


def finish(scenario: Scenario, done: Played, out: Path) -> dict[str, Any]:
    """Write the run directory `out` from the coordinator's record; return what commands print of it.

    What only a world that holds all data knows (exact accuracy, baselines, its seed, what lying sites did) is added,
    and the world's coordinator signs the whole again; where sums were formed without masks, also what was planned, and
    the key that signs, which was made for the run.
    """
    job, result, behind = done.work.job, done.record, done.federation
    backstage = behind if isinstance(behind, Backstage) else backstage_of(behind, job)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(result, part)
    table = json.loads((part / "run.json").read_text())
    history = sorted((result.parent / "history").glob("*.f32"))[1:]
    models = [np.frombuffer(path.read_bytes(), "<f4") for path in history]
    last = _flat(part / "model.safetensors", job)
    found = measure(job, backstage, models or [last])
    rows = [json.loads(line) for line in (part / "rounds.jsonl").read_text().splitlines()]
    if models:
        rows = [row | {"exact_accuracy": exact} for row, exact in zip(rows, found.curve, strict=True)]
    if done.course and done.course.timed:
        rows = with_answers(rows, done.course)
        table["simulated"] = turnout_of(done.course, rows, lambda sites: accuracy(job, last, backstage.held_of(sites)))
    table |= {"accuracy": found.accuracy, "baselines": found.as_dict()}
    if done.unattacked is not None:
        harm = damage(scenario, done.work, backstage.held, models or [last], done.unattacked)
        table["adversaries"] = harm.entry
        if models and harm.curve:
            rows = [row | {"attack_success": rate} for row, rate in zip(rows, harm.curve, strict=True)]
    table["seeds"] = {"job": job.seed, "world": scenario.world.seed}
    table["world"] = {**told(scenario, backstage.digest), **done.told}
    if scenario.world.sums == "exact":
        table["planned"] = planned(done.work)
        table["world"]["signed_by"] = backstage.signer.public.hex()
    if scenario.world.canaries:
        _keep_history(part / HISTORY, result.parent / "history")
    statement = statement_of(table, rows, (part / "model.safetensors").read_bytes())
    table |= signed(statement, backstage.signer)
    (part / "rounds.jsonl").write_text("".join(json.dumps(row, sort_keys=True) + "\n" for row in rows))
    (part / "run.json").write_text(json.dumps(table, indent=2, sort_keys=True) + "\n")
    build(part)
    if out.exists():
        out.rmdir()
    part.replace(out)
    return summary(table, out)


def _keep_history(path: Path, history: Path) -> None:
    """Write the model before the first round and after each, float32 [d] by number of rounds: what audits attack."""
    models = {file.stem: np.frombuffer(file.read_bytes(), "<f4") for file in sorted(history.glob("*.f32"))}
    path.write_bytes(save(models))


def summary(table: Mapping[str, Any], out: Path) -> dict[str, Any]:
    """The keys that `hushfed demo` and `hushfed simulate run` print, from run.json and the rounds.

    privacy.planned  whether its epsilon is one that nobody was charged, since sums were formed without masks
    attack           what lying sites have done: how often triggered records get the class that they want, how much
                     more often than without them, and by how much accuracy differs; None in an honest world
    simulated        of a world with a clock: its hours, and what deadlines did; then times of rounds are by that clock
    """
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text().splitlines()]
    privacy, baselines = table["job"]["privacy"], table["baselines"] or {}
    audited = json.loads((out / "audit.json").read_text())["privacy"]
    exact = table["manifest"] is None
    return {
        "status": table["status"],
        "run": str(out),
        "sites": table["population"] if exact else len(table["manifest"]["sites"]),
        "rounds": len(rounds),
        "accuracy": table["accuracy"],
        "pooled_accuracy": baselines.get("pooled_accuracy"),
        "alone_accuracy": baselines.get("alone_accuracy"),
        "privacy": {
            "epsilon": (audited["planned"] or {}).get("epsilon") if exact else audited["epsilon"],
            "delta": privacy["delta"],
            "unit": privacy["unit"],
            "mode": privacy["mode"],
            "planned": exact,
        },
        "claim": _claim(audited),
        "attack": _attack(table.get("adversaries")),
        "seconds": table["seconds"],
        "seconds_per_round": round(sum(row["seconds"] for row in rounds) / max(1, len(rounds)), 3),
        "report": str(out / "report.html"),
        **({"simulated": printed(table["simulated"])} if "simulated" in table else {}),
    }


def _attack(told: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The figures of an attack without their intervals."""
    if told is None:
        return None
    backdoor = told["backdoor"] or {}
    figures = {name: backdoor.get(place) for name, place in (("success", "rate"), ("base", "base"), ("lift", "lift"))}
    figures["difference"] = told["difference"]
    return {"sites": told["count"], **{name: one["value"] if one else None for name, one in figures.items()}}


def _claim(audited: Mapping[str, Any]) -> str | None:
    """What may be said of the site that spent most, in the audit's own sentence; or what was planned."""
    if audited["planned"]:
        return str(audited["planned"]["sentence"])
    costs = [math.inf if site["recomputed"] is None else site["recomputed"] for site in audited["sites"]]
    return str(audited["claims"][costs.index(max(costs))]) if costs else None


def _flat(path: Path, job: Job) -> Flat:
    """The parameters of a model file in the order of the job's model."""
    arrays = load_file(path)
    names = [name for name, parameter in model_of(job).named_parameters() if parameter.requires_grad]
    flat: Flat = np.concatenate([arrays[name].reshape(-1) for name in names])
    return flat

"""One run from its first round, or from its last checkpoint, to its record."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.config import plain
from common.errors import Code, Refusal
from common.identity import Signer
from common.job import Job
from common.messages import LedgerOrder, LedgerReply, OfferOrder
from common.orders import Task
from common.parameters import flatten
from common.secagg.manifest import Manifest, manifest_table, read_manifest
from common.versions import versions
from common.work import Work, model_of, work_of
from server.checkpoints import State, load_checkpoint, save_checkpoint, write_whole
from server.cohort import FINAL, wait_for
from server.gathering import Questions, Sites
from server.job import read_job
from server.ledgers import brought_up_to_date, keep_heads, known_heads
from server.protocols import sums_of
from server.records import SCHEMA, Record, signed_record, write_record
from server.rounds import Table, evaluate, play
from server.strategies.catalogue import strategy

HISTORY_BYTES = 2**26
RESTART_SECONDS = 4.0  # an agent that was killed is back after about three


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Where a run finds and leaves its files.

    federation  folder of the coordinator: manifest.json, governance.pub, identity.key
    job         job.toml        state  folder of this run: its name, checkpoint, live rounds, result/
    resume      go on from the checkpoint; without it a folder that has one is refused
    """

    federation: Path
    job: Path
    state: Path
    resume: bool = False

    @property
    def checkpoint(self) -> Path:
        """State after the last whole round."""
        return self.state / "checkpoint.safetensors"

    @property
    def heads(self) -> Path:
        """Ledger heads that the runs of this federation acknowledged; it outlives every run."""
        return self.federation / "heads.json"

    @property
    def live(self) -> Path:
        """Rounds so far, for whoever watches."""
        return self.state / "rounds.jsonl"

    @property
    def history(self) -> Path:
        """The model after each round, which noise has made public; only of small models."""
        return self.state / "history"

    @property
    def attempt(self) -> Path:
        """The task of the attempt that is under way; there only while one is."""
        return self.state / "attempt"

    @property
    def refusal(self) -> Path:
        """Why the run ended without a result, for whoever watches."""
        return self.state / "refusal.json"

    @property
    def result(self) -> Path:
        """The run directory, there once the run has ended well."""
        return self.state / "result"


def run(sites: Sites, settings: RunSettings) -> None:
    """Play the job to its end and write its record; with `resume` go on from the checkpoint.

    Errors: Refusal RUN_FAILED, E_TOO_FEW, JOB_INVALID, …; it is also left in the run's folder, where the checkpoint
    stays for `resume`.
    """
    settings.refusal.unlink(missing_ok=True)
    try:
        _run(sites, settings)
    except Refusal as refusal:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(settings.refusal, json.dumps(refusal.as_dict()).encode())
        raise


def _run(sites: Sites, settings: RunSettings) -> None:
    manifest = manifest_of(settings.federation)
    job = read_job(settings.job, manifest)
    work = work_of(job, manifest)
    questions = Questions(sites, manifest, Signer.load(settings.federation / "identity.key"))
    run_job(work, questions, settings, RESTART_SECONDS)


def run_job(work: Work, questions: Questions, settings: RunSettings, pause: float = 0.0) -> State:
    """`run` with everything read: the same for a deployment and for a simulated world.

    pause  seconds that an unmasking site is given to come back before it is asked again
    """
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    begun = time.monotonic()
    run_id = _name(settings)
    state = _opening_state(work, questions, settings, run_id)
    known = known_heads(settings.heads, work.job.dataset)
    aggregator = sums_of(questions, work, run_id, pause, known=known)
    before = state.seconds

    def save(now: State) -> None:
        now = replace(now, seconds=before + time.monotonic() - begun)
        save_checkpoint(settings.checkpoint, now, _mark(work, run_id))
        keep_heads(settings.heads, work.job.dataset, now.heads)
        _keep(work, settings, now)
        write_whole(settings.live, b"".join(json.dumps(row).encode() + b"\n" for row in now.rounds))
        settings.attempt.unlink(missing_ok=True)

    def begin(task: Task) -> None:
        write_whole(settings.attempt, task.encode())

    chosen = strategy(work.job.aggregation.strategy, **work.job.aggregation.settings)
    table = Table(work.job, work, chosen, aggregator, questions.sites.present, begin, save)
    save(state)
    while (step := _next_step(work.job, state)) is not None:
        state = step(table, state)
        save(state)
    state = replace(state, seconds=before + time.monotonic() - begun)
    state, ledgers, marks = _ledgers(work, questions, run_id, state, known)
    keep_heads(settings.heads, work.job.dataset, state.heads)
    record = Record(
        run={**_run_table(work, run_id, state), "fingerprints": marks},
        rounds=state.rounds,
        layout=work.layout,
        parameters=state.parameters,
        ledgers=ledgers,
    )
    write_record(settings.result, signed_record(record, questions.signer))
    return state


def _next_step(job: Job, state: State) -> Callable[[Table, State], State] | None:
    """Counts of the newest model if they are due, else the next round, else nothing."""
    if len(state.rounds) in job.evaluation_rounds and state.evaluated < len(state.rounds):
        return evaluate
    return play if len(state.rounds) < job.rounds else None


def _keep(work: Work, settings: RunSettings, state: State) -> None:
    """Add the newest model to the history, where all rounds together stay below HISTORY_BYTES."""
    if work.job.rounds * state.parameters.nbytes <= HISTORY_BYTES:
        settings.history.mkdir(exist_ok=True)
        write_whole(settings.history / f"{len(state.rounds):06d}.f32", state.parameters.astype("<f4").tobytes())


def _name(settings: RunSettings) -> bytes:
    """The 16 bytes that name the run in every order: the folder's own, or new ones."""
    file = settings.state / "run.id"
    if file.exists() and settings.resume:
        return bytes.fromhex(file.read_text())
    if settings.checkpoint.exists():
        raise Refusal(
            Code.FILE_EXISTS,
            f"Run not started in {settings.state}",
            "it holds a run already",
            "Resume that run, or name a new folder",
        )
    run_id = secrets.token_bytes(16)
    write_whole(file, run_id.hex().encode())
    return run_id


def _with_cut_attempt(state: State, file: Path) -> State:
    """The state with the attempt that a crash cut counted as spent: sites may have been charged for it."""
    if not file.exists():
        return state
    task = file.read_text()
    return replace(state, spent={**state.spent, task: state.spent.get(task, 0) + 1})


def _mark(work: Work, run_id: bytes) -> str:
    """What a checkpoint must be of: this run, and still the same job."""
    return f"{run_id.hex()} {work.job.digest().hex()}"


def _opening_state(work: Work, questions: Questions, settings: RunSettings, run_id: bytes) -> State:
    """The checkpoint's state; or the initial model, offered to every site that is present."""
    if settings.checkpoint.exists():
        return _with_cut_attempt(load_checkpoint(settings.checkpoint, _mark(work, run_id)), settings.attempt)
    wait = work.job.aggregation.deadline_seconds
    wait_for(work.job.aggregation.quorum, questions.sites.present, (), 3 * wait)
    parameters = flatten(model_of(work.job))
    chosen = strategy(work.job.aggregation.strategy, **work.job.aggregation.settings)
    clip = work.training.clip if work.training.adaptive else 0.0
    state = State(parameters=parameters, memory=dict(chosen.step.init(parameters.size)), clip=clip)
    offer = OfferOrder(run=run_id, job=work.job.to_bytes())
    for answer in questions.ask(offer, questions.sites.present(), wait):
        if answer.code in FINAL:
            state = replace(state, excluded={**state.excluded, answer.site: answer.code.value})
    left = len(work.manifest.sites) - len(state.excluded)
    if left < work.job.aggregation.quorum:
        codes = ", ".join(sorted(set(state.excluded.values())))
        raise Refusal(
            Code.RUN_FAILED,
            f"Job {work.job.name!r} not started",
            f"only {left} sites are left after refusals ({codes}), and the quorum is {work.job.aggregation.quorum}",
            "Ask the sites which line of their policy decided: hushfed site explain",
        )
    return state


def _ledgers(
    work: Work, questions: Questions, run_id: bytes, state: State, known: Mapping[int, str]
) -> tuple[State, dict[str, bytes], dict[str, str]]:
    """Every site's public ledger that can be had now, the mark of its data, and the state that knows their heads."""
    order = LedgerOrder(run=run_id, job=work.job.to_bytes())
    ledgers: dict[str, bytes] = {}
    marks: dict[str, str] = {}
    for answer in questions.ask(order, questions.sites.present(), work.job.aggregation.deadline_seconds):
        if isinstance(answer.reply, LedgerReply):
            name = work.manifest.site(answer.site).name
            ledgers[name] = answer.reply.entries
            if answer.reply.data:
                marks[name] = answer.reply.data.hex()
            state = brought_up_to_date(state, work, answer.site, answer.reply, known)
    return state, ledgers, marks


def _run_table(work: Work, run_id: bytes, state: State) -> dict[str, Any]:
    """run.json."""
    name = {site.id: site.name for site in work.manifest.sites}
    heads = {
        name[site]: {"head": head, "epsilon": _shown(state.epsilon.get(site))} for site, head in state.heads.items()
    }
    return {
        "schema": SCHEMA,
        "status": "completed",
        "run": run_id.hex(),
        "job": plain(work.job),
        "manifest": manifest_table(work.manifest),
        "versions": versions(),
        "seeds": {"job": work.job.seed},
        "heads": heads,
        "refusals": [{"site": name[site], "code": code} for site, code in sorted(state.excluded.items())],
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


def _governance(folder: Path) -> bytes:
    try:
        return bytes.fromhex((folder / "governance.pub").read_text().strip())
    except (OSError, ValueError):
        raise Refusal(
            Code.FILE_MISSING,
            f"{folder / 'governance.pub'} not read",
            "it is missing or no hex key",
            "Restore the key that signed the manifest",
        ) from None


def manifest_of(folder: Path) -> Manifest:
    """The manifest in force at a coordinator's folder. Errors: Refusal E_MANIFEST, FILE_MISSING."""
    return read_manifest(folder / "manifest.json", _governance(folder))


def node_keys(settings: RunSettings) -> dict[int, str]:
    """The node key of every site of the manifest, by which the transport knows it. Errors: Refusal E_MANIFEST."""
    return {site.id: site.node for site in manifest_of(settings.federation).sites}

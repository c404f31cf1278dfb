"""One run from its first round, or from its last checkpoint, to its record."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import Code, Refusal
from common.identity import Signer
from common.job import Job
from common.lock import Held
from common.orders import Task
from common.parameters import flatten
from common.secagg.manifest import Manifest, read_manifest
from common.work import Work, model_of, work_of
from server.checkpoints import State, load_checkpoint, save_checkpoint
from server.closing import Before, earlier_answers, make_room, record_of
from server.cohort import FINAL, Eligible, wait_for
from server.durable import write_whole
from server.gathering import Questions, Sites
from server.job import read_job
from server.ledgers import keep_heads, known_heads
from server.live_rounds import LiveRounds
from server.own_ledger import own_ledger
from server.progress import Progress, be_alone
from server.reach import Asked, Reach
from server.records import signed_record, write_record
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
    number      what the server calls the run
    durable     whether a crash leaves something to go on from; a world in memory ends with its process, and has nothing
    """

    federation: Path
    job: Path
    state: Path
    resume: bool = False
    number: int = 0
    durable: bool = True

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
        """Rounds so far: for whoever watches, and for the checkpoint, which names where it cuts them."""
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
    def turned_away(self) -> Path:
        """Why this coordinator left the folder to another one, whose own word stays."""
        return self.state / f"refusal-{self.number}.json"

    @property
    def result(self) -> Path:
        """The run directory, there once the run has ended well."""
        return self.state / "result"


def run(sites: Sites, settings: RunSettings) -> None:
    """Play the job to its end and write its record; with `resume` go on from the checkpoint.

    Errors: Refusal ALREADY_RUNNING if another process plays it; RUN_FAILED, E_TOO_FEW, JOB_INVALID, …, which are also
    left in the run's folder, where the checkpoint stays for `resume`.
    """
    with _alone(settings):
        settings.refusal.unlink(missing_ok=True)
        try:
            _run(sites, settings)
        except Refusal as refusal:
            write_whole(settings.refusal, json.dumps(refusal.as_dict()).encode())
            raise


def _alone(settings: RunSettings) -> Held:
    """Hold the run's folder. Errors: Refusal ALREADY_RUNNING, which is left beside what the holder wrote."""
    try:
        return be_alone(settings.state)
    except Refusal as refusal:
        write_whole(settings.turned_away, json.dumps(refusal.as_dict()).encode())
        raise


def _run(sites: Sites, settings: RunSettings) -> None:
    manifest = manifest_of(settings.federation)
    job = read_job(settings.job, manifest)
    work = work_of(job, manifest)
    questions = Questions(sites, manifest, Signer.load(settings.federation / "identity.key"))
    run_job(work, Asked(questions, RESTART_SECONDS), settings)


def run_job(work: Work, reach: Reach, settings: RunSettings) -> State:
    """`run` with everything read: the same for a deployment and for a simulated world."""
    settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    begun = reach.clock.now()
    run_id = _name(settings)
    progress = Progress(settings.state, work, settings.job)
    progress.waiting()
    state = _opening_state(work, reach, settings, run_id)
    known = known_heads(settings.heads, work.job.dataset)
    before, newest, live = state.seconds, state, LiveRounds(settings.live)

    def save(now: State) -> None:
        nonlocal newest
        newest = now
        _keep(work, settings, now)
        if not settings.durable:
            return
        now = replace(now, seconds=before + reach.clock.now() - begun)
        save_checkpoint(settings.checkpoint, now, _mark(work, run_id), live.keep(now.rounds))
        keep_heads(settings.heads, work.job.dataset, now.heads)
        settings.attempt.unlink(missing_ok=True)

    def begin(task: Task) -> None:
        if settings.durable:
            write_whole(settings.attempt, task.encode())
            progress.begun(task, newest)

    chosen = strategy(work.job.aggregation.strategy, **work.job.aggregation.settings)
    save(state)
    with own_ledger(work, run_id, settings.federation, reach.signer) as own:
        sums, since = reach.sums(work, run_id, known), begun - before
        table = Table(work.job, work, chosen, sums, reach.present, begin, save, own, reach.clock, since)
        while (step := _next_step(work.job, state)) is not None:
            state = step(table, state)
            save(state)
        central = own.lines()
    state = replace(state, seconds=before + reach.clock.now() - begun)
    progress.closing()
    earlier = Before(heads=known, answers=earlier_answers(work, settings.result) if settings.resume else ())
    found = reach.collect(work, run_id, state, earlier)
    keep_heads(settings.heads, work.job.dataset, found.state.heads)
    record = signed_record(replace(record_of(work, run_id, found), central=central), reach.signer)
    if settings.resume:
        make_room(settings.result)
    write_record(settings.result, record)
    return found.state


def _next_step(job: Job, state: State) -> Callable[[Table, State], State] | None:
    """Counts of the newest model if they are due, else the next round, else nothing."""
    if len(state.rounds) in job.evaluation_rounds and state.evaluated < len(state.rounds):
        return evaluate
    return play if len(state.rounds) < job.rounds else None


def _keep(work: Work, settings: RunSettings, state: State) -> None:
    """Add the newest model to the history, where all rounds together stay below HISTORY_BYTES."""
    if work.job.rounds * state.parameters.nbytes <= HISTORY_BYTES:
        settings.history.mkdir(exist_ok=True)
        file, model = settings.history / f"{len(state.rounds):06d}.f32", state.parameters.astype("<f4").tobytes()
        write_whole(file, model) if settings.durable else file.write_bytes(model)


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
            "Resume that run, give it up with `hushfed server discard`, or name a new folder",
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


def _opening_state(work: Work, reach: Reach, settings: RunSettings, run_id: bytes) -> State:
    """The checkpoint's state; or the initial model, offered to every site that is present.

    Whoever refused for good before is asked again by a run that is resumed: its keeper may have mended it.
    """
    if settings.checkpoint.exists():
        kept = load_checkpoint(settings.checkpoint, _mark(work, run_id), settings.live)
        return _with_cut_attempt(replace(kept, excluded={}), settings.attempt)
    deadline = work.job.aggregation.deadline_seconds
    wait_for(work.job.aggregation.quorum, lambda: Eligible(reach.present()), 3 * deadline, reach.clock)
    parameters = flatten(model_of(work.job))
    chosen = strategy(work.job.aggregation.strategy, **work.job.aggregation.settings)
    clip = work.training.clip if work.training.adaptive else 0.0
    state = State(parameters=parameters, memory=dict(chosen.init(parameters.size)), clip=clip)
    for site, code in reach.offer(work, run_id):
        if code in FINAL:
            state = replace(state, excluded={**state.excluded, site: code.value})
    left = len(work.roster.ids) - len(state.excluded)
    if left < work.job.aggregation.quorum:
        codes = ", ".join(sorted(set(state.excluded.values())))
        raise Refusal(
            Code.RUN_FAILED,
            f"Job {work.job.name!r} not started",
            f"only {left} sites are left after refusals ({codes}), and the quorum is {work.job.aggregation.quorum}",
            "Ask the sites which line of their policy decided: hushfed site explain",
        )
    return state


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

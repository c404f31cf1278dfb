"""What crosses to a worker in another process or machine: a scenario, a turn and sites; and what it computed, back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from common.config import canonical, plain
from common.errors import Code, Refusal
from common.frames import Frame, pack, unpack
from common.orders import Task
from common.privacy.clipped import Clipped, PrivateUpdate
from common.secagg.manifest import manifest_from
from common.work import Work, work_of
from server.job import prepared
from simulations.engines.crew import Crew
from simulations.engines.engine import Share, Turn
from simulations.ground import Ground
from simulations.open_world import population_of
from simulations.scenario import scenario_of_table

Method = Literal["hello", "updates", "share", "gradients", "privately", "counts"]
LIMIT = 2**32 - 1  # bytes of one errand or answer, as MessagePack counts them


class Errand(Frame, frozen=True, kw_only=True):
    """What a worker is to compute. No record crosses: the worker deals them for itself, by the seeds of the scenario.

    setting     `setting_of` the world                   records  `digest_of` its records, which must be the worker's
    kernel      that teaches the run's sites, by name    cuda     whether they are taught on CUDA
    parameters  float32 [d]     weights  float64 [n], and clip: of a share
    """

    setting: bytes
    records: bytes
    method: Method
    kernel: str
    cuda: bool
    task: Task
    round: int
    attempt: int
    parameters: bytes
    sites: tuple[int, ...]
    weights: bytes = b""
    clip: float = 0.0


class Answer(Frame, frozen=True, kw_only=True):
    """What a worker computed. Not private: it never leaves the simulation.

    rows   float64 [n, lanes] in the order of sites, one row of a share; int64 [cells] of counts
    marks  float64 [n]: norms of a share, bounds of gradients, steps of private updates
    plans  of private updates, None where training diverged
    """

    rows: bytes = b""
    marks: bytes = b""
    plans: tuple[str | None, ...] = ()


class Refused(Frame, frozen=True, kw_only=True):
    """The refusal that a worker met: its code, what, why and do."""

    code: str
    what: str
    why: str
    do: str


class Said(Frame, frozen=True, kw_only=True):
    """An answer or a refusal."""

    answer: Answer | None = None
    refused: Refused | None = None


def setting_of(work: Work, ground: Ground) -> bytes:
    """What workers rebuild the world of a run from: the scenario; where sums are masked, the public manifest too."""
    return canonical({"scenario": plain(ground.scenario), "manifest": work.roster.told()["manifest"]})


def digest_of(ground: Ground) -> bytes:
    """SHA-256 over all records of a world, in their order."""
    digest = hashlib.sha256()
    for part in (ground.pool.inputs, ground.pool.labels, ground.pool.groups):
        digest.update(f"{part.dtype}{tuple(part.shape)}".encode())
        digest.update(torch.as_tensor(part).contiguous().numpy().tobytes())
    return digest.digest()


def carried_out(frame: bytes) -> bytes:
    """The `Said` for an `Errand`, both packed. At a worker; the world of its last errand stays in memory."""
    torch.set_num_threads(1)  # sums in one order
    try:
        return pack(Said(answer=_answer(unpack(Errand, frame, LIMIT))))
    except Refusal as refusal:
        told = refusal.as_dict()
        return pack(Said(refused=Refused(**told)))


def answer_in(frame: bytes) -> Answer:
    """The answer that a worker gave. Errors: the Refusal that it met."""
    said = unpack(Said, frame, LIMIT)
    if said.refused:
        raise Refusal(Code(said.refused.code), said.refused.what, said.refused.why, said.refused.do)
    if said.answer is None:
        raise Refusal(Code.MESSAGE_INVALID, "A worker's answer", "it is empty", "Install the same release everywhere")
    return said.answer


def _answer(errand: Errand) -> Answer:
    crew, records = _crew(errand.setting, errand.cuda)
    if records != errand.records:
        why = "its records are not those of the machine that coordinates"
        do = "Give every machine the same release of hushfed and the same data folder (HUSHFED_DATA)"
        raise Refusal(Code.DATA_INVALID, "A machine of the cluster", why, do)
    if errand.method == "hello":
        return Answer()
    if errand.kernel:
        crew.take(errand.kernel)
    turn = Turn(errand.task, errand.round, errand.attempt, np.frombuffer(errand.parameters, "<f4").astype(np.float32))
    return _METHODS[errand.method](crew, turn, errand)


@lru_cache(1)
def _crew(setting: bytes, cuda: bool) -> tuple[Crew, bytes]:  # a key of the cache
    """Who computes the world of `setting` here, and the digest of its records."""
    table = json.loads(setting)
    scenario = scenario_of_table(table["scenario"])
    ground = Ground(scenario)
    manifest = table["manifest"]
    roster = population_of(scenario, ground) if manifest is None else manifest_from(manifest)
    work = work_of(prepared(scenario.job, roster), roster)
    return Crew(work, ground, "cuda" if cuda else "cpu"), digest_of(ground)


def _updates(crew: Crew, turn: Turn, errand: Errand) -> Answer:
    return Answer(rows=_rows([update for _, update in crew.updates(turn, errand.sites)]))


def _share(crew: Crew, turn: Turn, errand: Errand) -> Answer:
    share = crew.share(turn, errand.sites, np.frombuffer(errand.weights, "<f8"), errand.clip)
    return Answer(rows=share.sum.tobytes(), marks=share.norms.tobytes())


def _gradients(crew: Crew, turn: Turn, errand: Errand) -> Answer:
    found = [each for _, each in crew.gradients(turn, errand.sites)]
    return Answer(rows=_rows([each.total for each in found]), marks=_numbers([each.record_bound for each in found]))


def _privately(crew: Crew, turn: Turn, errand: Errand) -> Answer:
    found = [each for _, each in crew.privately(turn, errand.sites)]
    nothing = np.zeros(turn.parameters.size)
    return Answer(
        rows=_rows([each.value if each else nothing for each in found]),
        marks=_numbers([each.steps if each else 0 for each in found]),
        plans=tuple(each.plan_id if each else None for each in found),
    )


def _counts(crew: Crew, turn: Turn, errand: Errand) -> Answer:
    return Answer(rows=crew.counts(turn, errand.sites).astype("<i8").tobytes())


_METHODS: dict[str, Callable[[Crew, Turn, Errand], Answer]] = {
    "updates": _updates,
    "share": _share,
    "gradients": _gradients,
    "privately": _privately,
    "counts": _counts,
}


def updates_in(answer: Answer, count: int) -> list[NDArray[np.float64]]:
    """The updates of so many sites."""
    return list(_floats(answer.rows).reshape(count, -1))


def share_in(answer: Answer) -> Share:
    """The share of a worker's sites."""
    return Share(_floats(answer.rows), _floats(answer.marks))


def gradients_in(answer: Answer, count: int) -> list[Clipped]:
    """The sums of so many sites, whose records the worker has just clipped."""
    rows, bounds = _floats(answer.rows).reshape(count, -1), _floats(answer.marks)
    return [Clipped(row, float(bound)) for row, bound in zip(rows, bounds, strict=True)]


def private_in(answer: Answer, count: int) -> list[PrivateUpdate | None]:
    """The updates of so many sites, as the private optimizer of the worker made them; None where training diverged."""
    rows, steps = _floats(answer.rows).reshape(count, -1), _floats(answer.marks)
    return [
        None if plan is None else PrivateUpdate(row, plan, int(taken))
        for row, taken, plan in zip(rows, steps, answer.plans, strict=True)
    ]


def counts_in(answer: Answer) -> NDArray[np.int64]:
    """The counts of a worker's sites together."""
    return np.frombuffer(answer.rows, "<i8").astype(np.int64)


def _rows(rows: Sequence[NDArray[np.float64]]) -> bytes:
    return np.stack(rows).astype("<f8").tobytes()


def _numbers(numbers: Sequence[float]) -> bytes:
    return np.asarray(numbers, "<f8").tobytes()


def _floats(data: bytes) -> NDArray[np.float64]:
    return np.frombuffer(data, "<f8").astype(np.float64)

"""All sites of a scenario in one process: the same rounds, sessions, guards and masks as in a deployment."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from client.craft import Craft
from client.session import Session, open_session
from common.errors import Code, Refusal
from common.frames import unpack
from common.identity import Signer
from common.messages import LIMIT, AnyOrder, Envelope, WorkOrder
from common.randomness import child_numpy
from common.secagg.manifest import Manifest
from common.secagg.pairwise.orders import AdvertiseOrder, AgreeOrder, MaskOrder, PairDealOrder, RevealOrder
from common.work import Work, work_of
from deploy.provision import FederationFolder
from server.checkpoints import State
from server.coordinator import RunSettings, run_job
from server.gathering import Questions
from server.job import prepared
from server.reach import Asked
from simulations.ahead import Ahead
from simulations.backstage import Backstage
from simulations.engines.catalogue import EngineName, engine_of
from simulations.engines.cluster import ClusterSettings
from simulations.engines.engine import Turn
from simulations.faults import lost
from simulations.ground import Ground
from simulations.open_world import OpenWorld, population_of
from simulations.provision import settle
from simulations.scenario import FaultSettings, Scenario

STAGES = (AdvertiseOrder, PairDealOrder, MaskOrder, AgreeOrder, RevealOrder)


@dataclass(frozen=True)
class LocalSites:
    """`Sites` without sockets: each frame is handed to a session and its answer handed back, one after the other.

    ahead  computes the work of many sites before their sessions are asked; None: each session computes its own

    Dropouts lose a report after the site has worked and been charged for it, as a broken line would; of an attempt by
    pairwise masks, the answer to any of its stages. Which ones are lost depends on seed, site, round and attempt, and
    on nothing else.
    """

    sessions: Mapping[int, Session]
    faults: FaultSettings
    seed: int
    ahead: Ahead | None = None

    def present(self) -> frozenset[int]:
        """All sites."""
        return frozenset(self.sessions)

    def ask(
        self, frames: bytes | Mapping[int, bytes], to: Collection[int], deadline_seconds: float
    ) -> Iterator[tuple[int, bytes | None]]:
        """See `server.gathering.Sites`."""
        ordered = sorted(to)
        at_once = self.ahead.at_once if self.ahead else max(1, len(ordered))
        for start in range(0, len(ordered), at_once):
            some = ordered[start : start + at_once]
            if self.ahead:
                _compute(self.ahead, frames[some[0]] if isinstance(frames, Mapping) else frames, some)
            for site in some:
                frame = frames[site] if isinstance(frames, Mapping) else frames
                answer = self.sessions[site].handle(frame)
                yield site, None if self._lost(site, frame) else answer

    def _lost(self, site: int, frame: bytes) -> bool:
        order = _order(frame) if self.faults.dropout else None
        if not isinstance(order, WorkOrder | AdvertiseOrder | PairDealOrder | MaskOrder | AgreeOrder | RevealOrder):
            return False
        place = (site, order.task, order.round, order.attempt)
        if not lost(self.seed, self.faults.dropout, place):
            return False
        stage = child_numpy(self.seed, "stage of dropout", *place).integers(len(STAGES))
        return isinstance(order, WorkOrder | STAGES[stage])


def _compute(ahead: Ahead, frame: bytes, sites: Sequence[int]) -> None:
    """Have the work of an order computed for all these sites. Orders of one attempt differ in nothing that matters."""
    order = _order(frame)
    if isinstance(order, WorkOrder | AdvertiseOrder):
        parameters = np.frombuffer(order.parameters, "<f4").astype(np.float32)
        ahead.compute(Turn(order.task, order.round, order.attempt, parameters), sites)


def _order(frame: bytes) -> AnyOrder:
    """The order inside a frame that this process sealed itself."""
    order: AnyOrder = unpack(AnyOrder, unpack(Envelope, frame, LIMIT).body, LIMIT)  # type: ignore[arg-type]  # a union
    return order


@dataclass(frozen=True)
class Finished:
    """A simulated run: its folder of files, its run directory, and the coordinator's last state.

    federation  its folders; where sums are exact and sites have none, what stands for them
    told        the engine, as the record names it
    """

    federation: FederationFolder | Backstage
    record: Path
    state: State
    work: Work
    told: Mapping[str, str] = field(default_factory=dict)


def simulate(
    scenario: Scenario,
    folder: Path,
    engine: EngineName = EngineName.PROCESS,
    cluster: ClusterSettings | None = None,
) -> Finished:
    """Play the whole scenario under the new or empty `folder`, where its run directory lies then.

    engine   how updates are computed (`simulations.engines`); the result is the same up to rounding
    cluster  that of the engine ray, if not the environment's
    Errors: Refusal of every kind that a deployment knows.

    >>> import tempfile
    >>> from simulations.scenario import example, read_scenario
    >>> scenario = read_scenario(example("clinics"), ["job.rounds=2"])
    >>> finished = simulate(scenario, Path(tempfile.mkdtemp()) / "world")
    >>> len(finished.state.rounds)
    2
    """
    torch.set_num_threads(1)  # sums in one order, so that a world can be repeated bit for bit
    return (_masked if scenario.world.sums == "masked" else _exact)(scenario, folder, engine, cluster)


def _exact(scenario: Scenario, folder: Path, engine: EngineName, cluster: ClusterSettings | None) -> Finished:
    """Without masks, orders and ledgers."""
    if folder.exists() and any(folder.iterdir()):
        raise Refusal(Code.FILE_EXISTS, f"{folder} not used", "it is not empty", "Name a new folder")
    ground = Ground(scenario)
    roster = population_of(scenario, ground)
    work = work_of(prepared(scenario.job, roster), roster)
    computed = engine_of(engine, work, ground, cluster)
    settings = RunSettings(federation=folder, job=folder / "job.toml", state=folder / "state", durable=False)
    signer = Signer.generate()
    with contextlib.closing(computed):
        state = run_job(work, OpenWorld(scenario, ground, computed, signer), settings)
    return Finished(ground.backstage(signer), settings.result, state, work, computed.told)


def _masked(scenario: Scenario, folder: Path, engine: EngineName, cluster: ClusterSettings | None) -> Finished:
    """Every site with its session, its keys and its ledger; the engine computes, and the sessions do all else."""
    federation = settle(scenario, folder)
    work = work_of(prepared(scenario.job, federation.manifest), federation.manifest)
    settings = RunSettings(
        federation=federation.coordinator,
        job=federation.coordinator / "job.toml",
        state=federation.coordinator / "state",
        durable=False,
    )
    world = scenario.world
    with contextlib.ExitStack() as stack:
        ahead = None
        if engine is not EngineName.LOOP and not world.canaries:  # canaries stand in sites' files only
            computed = engine_of(engine, work, Ground(scenario), cluster)
            ahead = Ahead(work, stack.enter_context(contextlib.closing(computed)))
        sessions = stack.enter_context(open_sessions(federation, ahead))
        sites = LocalSites(sessions, world.faults, world.seed, ahead)
        state = run_job(work, Asked(_questions(sites, federation.manifest, federation.coordinator)), settings)
        told = ahead.told if ahead else {"engine": "loop", "kernel": "loop"}
    return Finished(federation, settings.result, state, work, told)


@contextlib.contextmanager
def open_sessions(federation: FederationFolder, craft: Craft | None = None) -> Iterator[dict[int, Session]]:
    """The session of every site of the folder, by id. craft: how their updates are computed, if not by themselves."""
    with contextlib.ExitStack() as stack:
        opened = ((site.id, open_session(site.settings, craft, durable=False)) for site in federation.sites)
        yield {number: stack.enter_context(session) for number, session in opened}


def _questions(sites: LocalSites, manifest: Manifest, coordinator: Path) -> Questions:
    return Questions(sites, manifest, Signer.load(coordinator / "identity.key"))

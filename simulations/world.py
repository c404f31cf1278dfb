"""All sites of a scenario in one process: the same rounds, sessions, guards and masks as in a deployment."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from common.errors import Code, Refusal
from common.identity import Signer
from common.parameters import Flat
from common.work import Work, work_of
from deploy.provision import FederationFolder
from server.checkpoints import State
from server.clock import SYSTEM, Clock
from server.closing import Before, Collected
from server.coordinator import RESTART_SECONDS, RunSettings, run_job
from server.gathering import Questions
from server.job import prepared
from server.reach import Asked
from simulations.adversaries.band import Band
from simulations.agents import Agents
from simulations.ahead import Ahead
from simulations.backstage import Backstage
from simulations.course import Course, refuse_hopeless
from simulations.engines.catalogue import EngineName, engine_of
from simulations.engines.cluster import ClusterSettings
from simulations.engines.engine import Engine
from simulations.ground import Ground
from simulations.local_sites import LocalSites
from simulations.open_world import OpenWorld, population_of
from simulations.provision import settle
from simulations.scenario import Scenario


@dataclass(frozen=True)
class Finished:
    """A simulated run: its folder of files, its run directory, and the coordinator's last state.

    federation  its folders; where sums are exact and sites have none, what stands for them
    told        the engine, as the record names it
    course      what went wrong when
    unattacked  where sites lied: the parameters that the same world comes to if nobody does
    """

    federation: FederationFolder | Backstage
    record: Path
    state: State
    work: Work
    told: Mapping[str, str]
    course: Course
    unattacked: Flat | None = None


def simulate(
    scenario: Scenario,
    folder: Path,
    engine: EngineName = EngineName.PROCESS,
    cluster: ClusterSettings | None = None,
) -> Finished:
    """Play the whole scenario under the new or empty `folder`, where its run directory lies then.

    engine   how updates are computed (`simulations.engines`); the result is the same up to rounding
    cluster  that of the engine ray, if not the environment's
    Where sites lie, the same world is played once more without them, its sums formed in the open: only what differs is
    the attack's doing.
    Errors: Refusal of every kind that a deployment knows.

    >>> import tempfile
    >>> from simulations.scenario import example, read_scenario
    >>> scenario = read_scenario(example("clinics"), ["job.rounds=2"])
    >>> finished = simulate(scenario, Path(tempfile.mkdtemp()) / "world")
    >>> len(finished.state.rounds)
    2
    """
    torch.set_num_threads(1)  # sums in one order, so that a world can be repeated bit for bit
    done = (_masked if scenario.world.sums == "masked" else _exact)(scenario, folder, engine, cluster)
    if scenario.world.adversaries is None:
        return done
    honest = replace(scenario, world=replace(scenario.world, adversaries=None, sums="exact"))
    with tempfile.TemporaryDirectory(prefix="hushfed-honest-") as elsewhere:
        alike = _exact(honest, Path(elsewhere) / "world", engine, cluster)
    return replace(done, unattacked=alike.state.parameters)


def _exact(scenario: Scenario, folder: Path, engine: EngineName, cluster: ClusterSettings | None) -> Finished:
    """Without masks, orders and ledgers."""
    if folder.exists() and any(folder.iterdir()):
        raise Refusal(Code.FILE_EXISTS, f"{folder} not used", "it is not empty", "Name a new folder")
    ground = Ground(scenario)
    roster, world = population_of(scenario, ground), scenario.world
    work = work_of(prepared(scenario.job, roster), roster)
    course = Course(world.faults, world.seed, roster)
    refuse_hopeless(work.job, world.faults, world.seed, roster)
    computed = engine_of(engine, work, ground, cluster)
    settings = RunSettings(federation=folder, job=folder / "job.toml", state=folder / "state", durable=False)
    signer = Signer.generate()
    with contextlib.closing(computed):
        band = _band(scenario, work, ground, computed)
        reach = OpenWorld(ground, band.engine if band else computed, signer, course, band)
        state = run_job(work, reach, settings)
    return Finished(ground.backstage(signer), settings.result, state, work, computed.told, course)


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
    course = Course(world.faults, world.seed, federation.manifest)
    refuse_hopeless(work.job, world.faults, world.seed, federation.manifest)
    with contextlib.ExitStack() as stack:
        ahead = None
        if (engine is not EngineName.LOOP and not world.canaries) or world.adversaries:  # canaries: in files only
            ground = Ground(scenario)
            computed = stack.enter_context(contextlib.closing(engine_of(engine, work, ground, cluster)))
            band = _band(scenario, work, ground, computed)
            ahead = Ahead(work, band.engine if band else computed, band)
        agents = stack.enter_context(Agents(federation.sites, ahead))
        state = run_job(work, _reach(federation, LocalSites(agents, course, ahead)), settings)
        told = ahead.told if ahead else {"engine": "loop", "kernel": "loop"}
    return Finished(federation, settings.result, state, work, told, course)


def _band(scenario: Scenario, work: Work, ground: Ground, engine: Engine) -> Band | None:
    """The sites of the world that lie, if some do."""
    plan = scenario.world.adversaries
    return Band(work, ground, engine, plan, scenario.world.seed) if plan else None


@dataclass(frozen=True)
class _Asked(Asked):
    """`Reach` of a world that is over once every site has shown its ledger."""

    course: Course = field(kw_only=True)

    def collect(self, work: Work, run: bytes, state: State, before: Before) -> Collected:
        """See `Reach`."""
        self.course.end()
        return super().collect(work, run, state, before)


def _reach(federation: FederationFolder, sites: LocalSites) -> _Asked:
    """How the run reaches its sites: by the world's clock where it has one, and then as patient as a deployment."""
    course, signer = sites.course, Signer.load(federation.coordinator / "identity.key")
    clock: Clock = course.clock if course.timed else SYSTEM
    questions = Questions(sites, federation.manifest, signer, clock)
    return _Asked(questions, RESTART_SECONDS if course.timed else 0.0, course=course)

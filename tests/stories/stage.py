"""A stage for stories: small federations, jobs they play, and what can be read afterwards."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import tomli_w

from common import console
from common.config import plain, read_table
from common.identity import Signer
from common.privacy.chain import verify_public
from common.privacy.entries import Entry, Kind
from common.privacy.spending import spending_of
from common.work import work_of
from deploy.provision import FederationFolder, SiteFolder
from deploy.up import Federation, FederationLayout
from server.checkpoints import State
from server.coordinator import RunSettings, run_job
from server.gathering import Questions, Sites
from server.job import prepared
from server.reach import Asked
from simulations.agents import Agents
from simulations.course import Course
from simulations.demo import Deployment, deploy, play, without_nothing
from simulations.faults import FaultSettings
from simulations.local_sites import LocalSites
from simulations.scenario import Scenario, example, read_scenario

ROOT = Path(__file__).parents[2]
DELTA = 1e-5
DEADLINE = 25.0  # seconds a round waits: far more than a busy machine needs


@dataclass(frozen=True)
class Act(Deployment):
    """One job on a federation that plays several."""

    place: Path

    @property
    def state(self) -> Path:
        return self.place


def scenario_of(*changes: str) -> Scenario:
    """The clinics with a few rounds."""
    settled = [
        "job.rounds=3",
        "job.privacy.evaluation_epsilon=1.0",
        f"job.aggregation.deadline_seconds={DEADLINE}",
        "job.aggregation.session_rounds=16",
    ]
    return read_scenario(example("clinics"), [*settled, *changes])


def set_up(scenario: Scenario, root: Path, *, limit: float, agent: str = "client.agent") -> Deployment:
    """A federation whose sites allow `limit` on every record, over all jobs."""
    made = deploy(scenario, root)
    for site in made.folder.sites:
        change_policy(site, "privacy", max_epsilon=limit)
    sites = tuple(replace(site, agent=agent) for site in made.layout.sites)
    layout: FederationLayout = replace(made.layout, sites=sites)
    return replace(made, layout=layout)


def change_policy(site: SiteFolder, part: str, **lines: Any) -> None:
    """Write other values into a part of policy.toml; the site reads it when its agent starts."""
    path = site.root / "policy.toml"
    table = read_table(path)
    table[part] |= lines
    path.write_text(tomli_w.dumps(table))


def act(made: Deployment, name: str, scenario: Scenario) -> Act:
    """Another job on the same federation, with a folder of its own."""
    job = made.folder.coordinator / f"{name}.toml"
    job.write_text(tomli_w.dumps(without_nothing(plain(scenario.job))))
    return Act(made.folder, made.layout, job, made.folder.coordinator / name)


def perform(federation: Federation, played: Deployment, watch: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Play to the end over the processes. Errors: Refusal with what stopped the coordinator."""
    play(federation, played, watch or (lambda _row: None), seconds=200)


def bereaved(scenario: Scenario, root: Path, victim: str, agent: str) -> Act:
    """A run of two rounds. In the second, agent and link of the victim are killed where its `agent` waits for it.

    agent  module of tests/stories that is every site's agent; it makes the file `lost` where there is a file `lose`
    """
    made = set_up(scenario, root, limit=900.0, agent=agent)
    played, folder = act(made, "bereft", scenario), site_of(made, victim).root
    (folder / "lose").write_text("1")

    def strike(row: dict[str, Any]) -> None:
        if row["round"] == 1:
            until((folder / "lost").exists, 100)
            kill(federation, f"agent-{victim}")
            kill(federation, f"link-{victim}")
        else:
            (folder / "lose").unlink()  # it may come back, and show its ledger

    with Federation(made.layout) as federation:
        perform(federation, played, strike)
    return played


def rehearse(folder: FederationFolder, scenario: Scenario, name: str, around: Callable[[LocalSites], Sites]) -> State:
    """Play in this process, on the same folders and ledgers. `around` may stand between coordinator and sites."""
    coordinator = folder.coordinator
    work = work_of(prepared(scenario.job, folder.manifest), folder.manifest)
    settings = RunSettings(federation=coordinator, job=coordinator / "job.toml", state=coordinator / name)
    with Agents(folder.sites) as agents:
        sites = around(LocalSites(agents, Course(FaultSettings(), scenario.world.seed, folder.manifest)))
        signer = Signer.load(coordinator / "identity.key")
        return run_job(work, Asked(Questions(sites, folder.manifest, signer)), settings)


def site_of(made: Deployment, name: str) -> SiteFolder:
    """The site called `name`."""
    return next(site for site in made.folder.sites if site.name == name)


def rounds_of(result: Path) -> list[dict[str, Any]]:
    """rounds.jsonl of a run directory."""
    return [json.loads(line) for line in (result / "rounds.jsonl").read_text().splitlines()]


def run_of(result: Path) -> dict[str, Any]:
    """run.json of a run directory."""
    table: dict[str, Any] = json.loads((result / "run.json").read_text())
    return table


def ledger_file(site: SiteFolder) -> Path:
    """The ledger as it lies at the site."""
    return site.root / "state" / "ledger-clinics.sqlite"


def ledger_of(site: SiteFolder) -> list[Entry]:
    """The entries at the site, every hash and signature verified; none if it has no ledger yet."""
    path = ledger_file(site)
    if not path.exists():
        return []
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT body, hash, signature FROM lines ORDER BY seq").fetchall()
    lines = [
        json.dumps(
            {"body": json.loads(body), "hash": place.hex(), "signature": signature.hex()},
            sort_keys=True,
            separators=(",", ":"),
        )
        for body, place, signature in rows
    ]
    public = Signer.load(site.root / "state" / "identity").public
    return verify_public("".join(f"{line}\n" for line in lines).encode(), public)


def reservations(entries: list[Entry], run: str) -> list[Entry]:
    """What a run charged for training, oldest first."""
    charges = [entry for entry in entries if entry.kind is Kind.RESERVE and entry.facts and entry.facts.run == run]
    return [entry for entry in charges if entry.partition == "train"]


def spent_by(entries: list[Entry]) -> float:
    """Epsilon of the entries, recomputed from their plans."""
    return spending_of(entries, DELTA).gated


@contextmanager
def in_training(site: SiteFolder) -> Iterator[None]:
    """Inside, the site's held agent is in the middle of a round's training; afterwards it may go on."""
    (site.root / "held").unlink(missing_ok=True)
    (site.root / "hold").touch()
    try:
        until((site.root / "held").exists, 60)
        yield
    finally:
        (site.root / "hold").unlink()


def kill(federation: Federation, process: str) -> None:
    """SIGKILL to one of the federation's processes; its supervisor starts it again."""
    os.kill(federation.pids()[process], signal.SIGKILL)


def back_again(federation: Federation, process: str, before: Mapping[str, int]) -> Callable[[], bool]:
    """Whether a process that was killed runs under another number."""
    return lambda: federation.pids().get(process, before[process]) != before[process]


def coordinator_of(federation: Federation) -> psutil.Process:
    """The process that plays the newest run."""
    started = psutil.Process(federation.pids()["executor"]).children(recursive=True)
    playing = [one for one in started if one.name() == "flwr-serverapp" and alive(one)]
    return max(playing, key=psutil.Process.create_time)


def alive(process: psutil.Process) -> bool:
    """Not merely unreaped."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def command(*words: str) -> tuple[int, dict[str, Any]]:
    """Exit code of `hushfed WORDS --json`, and the object that it prints as its last line."""
    with redirect_stdout(StringIO()) as said, pytest.raises(SystemExit) as ended:
        console.main([*words, "--json"])
    found: dict[str, Any] = json.loads(said.getvalue().splitlines()[-1])
    return int(ended.value.code or 0), found


def until(condition: Callable[[], bool], seconds: float) -> None:
    """Wait for something that must happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)

"""hushfed demo: a throw-away federation on this machine, with real servers, TLS, keys, processes and noise."""

from __future__ import annotations

import math
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import typer

from common import console
from common.config import plain
from common.errors import Code, Refusal
from common.work import Work, work_of
from deploy.host import layout_of, refusal_of, rounds_of
from deploy.provision import FederationFolder
from deploy.up import Federation, FederationLayout
from simulations.finish import finish, refuse_to_overwrite
from simulations.provision import settle
from simulations.scenario import Scenario, example, read_scenario

MOST_SECONDS = 3600.0
LOOK_SECONDS = 0.2

Watch = Callable[[dict[str, Any]], None]


class Data(StrEnum):
    """Embedded data sets, each with the mode that suits it."""

    CLINICS = "clinics"
    DIGITS = "digits"
    DIGITS_LOCAL = "digits-local"


@dataclass(frozen=True)
class Deployment:
    """A federation on this host that has been set up: its files, and how its processes are laid out."""

    folder: FederationFolder
    layout: FederationLayout
    job: Path

    @property
    def state(self) -> Path:
        """The coordinator's folder of the run."""
        return self.folder.coordinator / "state"

    @property
    def federation(self) -> FederationFolder:
        """See `simulations.finish.Played`."""
        return self.folder

    @property
    def record(self) -> Path:
        """See `simulations.finish.Played`."""
        return self.state / "result"

    @property
    def work(self) -> Work:
        """What the job and the manifest make."""
        from server.job import read_job

        return work_of(read_job(self.job, self.folder.manifest), self.folder.manifest)

    @property
    def told(self) -> Mapping[str, str]:
        """No engine: its sites are processes."""
        return {}

    @property
    def course(self) -> None:
        """Nothing goes wrong by seed here, and time is the system's."""

    @property
    def unattacked(self) -> None:
        """Nobody lies."""


@console.guarded
def command(
    *,
    data: Annotated[Data, typer.Option(help="Embedded data set.")] = Data.CLINICS,
    sites: Annotated[int | None, typer.Option(min=2, max=16, help="Number of sites.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of training.")] = None,
    epsilon: Annotated[float | None, typer.Option(help="Most that may be learned of one record.")] = None,
    out: Annotated[Path | None, typer.Option(help="New or empty folder for everything.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")] = False,
) -> console.Exit:
    """Train one private model over real processes on this machine, and report on it.

    Everything lies under OUT: federation/ with keys and logs, run/ with model, ledgers and report.
    """
    scenario = read_scenario(example(data.value)).with_sizes(sites=sites, rounds=rounds, epsilon=epsilon)
    out = (out or Path(f"hushfed-demo-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}")).resolve()
    refuse_to_overwrite(out)
    begun = time.monotonic()
    _say("Setting up keys, certificates and sites", json=json)
    deployment = deploy(scenario, out / "federation")
    with Federation(deployment.layout) as federation:
        _say(f"{len(deployment.folder.sites)} sites are online after {time.monotonic() - begun:.1f} s", json=json)
        with console.progress("Rounds", scenario.job.rounds, json=json) as step:
            play(federation, deployment, lambda row: _show(row, step))
    result = finish(scenario, deployment, out / "run")
    result["seconds"] = round(time.monotonic() - begun, 1)
    console.emit(result, json=json)
    return console.Exit.DONE


def deploy(scenario: Scenario, root: Path) -> Deployment:
    """Set up the scenario's federation under `root`, with its job as a file; nothing runs yet.

    Errors: Refusal as `settle`; CONFIG_INVALID for a scenario with lying sites: processes of their own do as installed.
    """
    if scenario.world.adversaries is not None:
        why = "sites in processes of their own run what is installed, and that does not lie"
        raise Refusal(Code.CONFIG_INVALID, "[world.adversaries] not settled", why, "Simulate it: hushfed simulate run")
    folder = settle(scenario, root)
    job = folder.coordinator / "job.toml"
    job.write_text(tomli_w.dumps(without_nothing(plain(scenario.job))))
    return Deployment(folder, layout_of(root), job)


def play(
    federation: Federation, deployment: Deployment, watch: Watch, *, resume: bool = False, seconds: float = MOST_SECONDS
) -> None:
    """Submit the job and wait for its end, showing each round to `watch` as it closes.

    Errors: Refusal with what stopped the coordinator, RUN_FAILED if it died or `seconds` passed.
    """
    settings: dict[str, str | int | float | bool] = {
        "federation": str(deployment.folder.coordinator),
        "job": str(deployment.job),
        "state": str(deployment.state),
        "resume": resume,
    }
    number = federation.run(settings)
    seen = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for row in rounds_of(deployment.state)[seen:]:
            seen += 1
            watch(row)
        if (deployment.state / "result").exists():
            return
        state = federation.peek(number)
        if state and state.finished:
            if (deployment.state / "result").exists():
                return
            raise refusal_of(deployment.state, state.details)
        time.sleep(LOOK_SECONDS)
    raise Refusal(Code.RUN_FAILED, "Run not finished", f"{seconds:.0f} s passed", "Look at the logs of its processes")


def without_nothing(table: Any) -> Any:
    """`table` without the settings that are None: TOML has no word for them."""
    if isinstance(table, dict):
        return {name: without_nothing(value) for name, value in table.items() if value is not None}
    return [without_nothing(value) for value in table] if isinstance(table, list) else table


def _say(text: str, *, json: bool) -> None:
    if not json and sys.stderr.isatty():
        sys.stderr.write(f"{text}\n")


def _show(row: dict[str, Any], step: Callable[..., None]) -> None:
    loss = f"loss {row['loss']:.3f}" if row["loss"] is not None else ""
    most = max((e for e in row["epsilon"].values() if e is not None), default=0.0)
    spent = f"epsilon {math.ceil(100 * most - 1e-9) / 100:.2f}"
    refused = "".join(f", {each['site']} {each['code']}" for each in row["refusals"])
    step(note=f"{loss} {spent} {len(row['sites'])} sites{refused}")

"""A federation's processes on one host: started together, watched, and gone together."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from common.errors import Code, Refusal
from common.lock import Purpose, alone, hold, site_lock
from common.status_file import forget_process, read_status, refusal_in
from common.supervision import Program, State, Supervisor
from common.surroundings import environment, listens, network_isolation, socket_folder
from deploy.authority import ServerFiles, read_node_key
from deploy.fleet import FleetControl, RunState, Setting, is_healthy, make_bundle
from deploy.ports import refuse_taken

READY_SECONDS = 120.0
LOOK_SECONDS = 0.1
_SERVER, _EXECUTOR, _AGENT, _LINK = range(4)  # ranks: links leave first, the server goes last


@dataclass(frozen=True, kw_only=True)
class SiteProcesses:
    """One site on this host: an agent and a link.

    settings  its site.toml, given to the agent
    agent     module that is the agent
    run       where agent/agent.json and link/link.json say how they fare, as of `hushfed site up`; if not given,
              they lie with the federation's own files
    """

    name: str
    settings: Path
    node_key: Path = field(repr=False)
    agent: str = "client.agent"
    run: Path | None = None


@dataclass(frozen=True, kw_only=True)
class FederationLayout:
    """Where a federation on one host runs.

    folder   homes, logs, database, status files; kept afterwards, and taken up again by the next start
    secret   what lets our executor fetch runs
    public   HOST:PORT for sites; private: loopback HOST:PORT for operators
    """

    folder: Path
    server: ServerFiles
    secret: Path = field(repr=False)
    sites: tuple[SiteProcesses, ...]
    public: str
    private: str


class Federation:
    """The processes of a layout. Use as a context manager: whatever happens inside, nothing is left running."""

    def __init__(self, layout: FederationLayout) -> None:
        self.layout = layout
        self._folder = layout.folder.resolve()
        self._sockets = socket_folder(self._folder)
        self._supervisor = Supervisor()
        self._locks = ExitStack()
        self.fleet = FleetControl(layout.private, layout.server.ca)

    def __enter__(self) -> Federation:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self, seconds: float = READY_SECONDS) -> Federation:
        """Start everything and return when every site is online.

        Errors: Refusal PROCESS_FAILED; ALREADY_RUNNING, CONFIG_INVALID before anything was started or changed.
        """
        end = time.monotonic() + seconds
        sites = self.layout.sites
        self._be_alone()
        self._note_addresses()
        self._drop_half_made()
        # All at once: agents load their libraries while the server opens its database.
        for site in sites:
            self._status(site, "link").unlink(missing_ok=True)  # what an earlier process said of itself
            forget_process(self._status(site, "agent"))
        self._supervisor.start([self._server(), *(self._agent(site) for site in sites)])
        self._wait(lambda: is_healthy(self.layout.private, self.layout.server.ca), end)
        self._making.unlink(missing_ok=True)
        for site in sites:
            self.fleet.admit(read_node_key(site.node_key).public, site.name)
        self._supervisor.start([*(self._link(site) for site in sites), self._executor()])
        self._wait(self._all_ready, end)
        return self

    def stop(self) -> None:
        """End every process and wait for it. May be repeated."""
        self.fleet.close()  # first: the server waits for open connections before it ends
        self._supervisor.stop()
        shutil.rmtree(self._sockets, ignore_errors=True)
        self._locks.close()

    def run(self, settings: Mapping[str, Setting], bundle: bytes | None = None) -> int:
        """Start a run; `settings` are those of `fleet.SETTINGS`. Returns its number."""
        return self.fleet.start(settings, bundle or make_bundle())

    def wait(self, run: int, seconds: float) -> RunState:
        """The state of `run` when it has ended. Errors: Refusal RUN_FAILED after `seconds`, PROCESS_FAILED."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._refuse_if_refused()
            try:
                if (state := self.fleet.run(run)).finished:
                    return state
            except Refusal as refusal:  # the server is being restarted
                if refusal.code is not Code.FEDERATION_UNREACHABLE:
                    raise
            time.sleep(LOOK_SECONDS)
        raise Refusal(Code.RUN_FAILED, f"Run {run} not finished", f"{seconds:.0f} s passed", "Wait longer, or stop it")

    def peek(self, run: int) -> RunState | None:
        """Where `run` stands now, or None while the server is being restarted. Errors: Refusal PROCESS_FAILED."""
        self._refuse_if_refused()
        try:
            return self.fleet.run(run)
        except Refusal as refusal:
            if refusal.code is Code.FEDERATION_UNREACHABLE:
                return None
            raise

    def pids(self) -> dict[str, int]:
        """Process ids by name: "superlink", "executor", "agent-NAME", "link-NAME"."""
        return self._supervisor.pids()

    def states(self) -> dict[str, State]:
        """How each process fares, by name."""
        return self._supervisor.states()

    def status(self, process: str) -> dict[str, Any]:
        """What a site's process last wrote about itself ("agent-NAME": isolation; "link-NAME": joined, error)."""
        kind, _, name = process.partition("-")
        return next((read_status(self._status(site, kind)) for site in self.layout.sites if site.name == name), {})

    def log(self, process: str) -> str:
        """All that a process has printed."""
        path = self._folder / "logs" / f"{process}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _all_ready(self) -> bool:
        online = sum(node.online for node in self.fleet.nodes())
        return online >= len(self.layout.sites) and all(listens(self._socket(site)) for site in self.layout.sites)

    def _wait(self, ready: Any, end: float) -> None:
        while not ready():
            self._refuse_if_refused()
            if time.monotonic() > end:
                raise Refusal(
                    Code.PROCESS_FAILED,
                    "Federation not started",
                    "it is not ready in time",
                    f"Read {self._folder}/logs",
                )
            time.sleep(LOOK_SECONDS)

    def refused(self) -> dict[str, Refusal]:
        """Why each process that will not run again before its keeper acts does not, by name."""
        return {name: self._failed(name) for name, state in self.states().items() if state == "refused"}

    def _failed(self, name: str) -> Refusal:
        """In the process's own words, where it left any."""
        told, log = refusal_in(self.status(name)), self._folder / "logs" / f"{name}.log"
        why = f"{told.what}: {told.why}" if told else "it ended and gave no reason"
        return Refusal(Code.PROCESS_FAILED, f"{name} does not run", why, told.do if told else f"Read {log}")

    def _refuse_if_refused(self) -> None:
        for refusal in self.refused().values():
            raise refusal

    def _be_alone(self) -> None:
        """Hold this federation, and those sites of it whose own command could start them."""
        harm = "a second server would take its port and its database"
        purpose = Purpose(by="hushfed fed up", what=f"{self._folder.parent} not started", harm=harm)
        self._locks.enter_context(hold(self._folder / "federation.lock", purpose))
        for site in self.layout.sites:
            if site.run is not None:
                self._locks.enter_context(hold(site_lock(site.run), alone(site.name, "hushfed fed up")))
        refuse_taken(self.layout.public, "--public")
        refuse_taken(self.layout.private, "--private")

    def _note_addresses(self) -> None:
        """Written down for the operator's commands."""
        found = {"public": self.layout.public, "private": self.layout.private}
        (self._folder / "addresses.json").write_text(json.dumps(found))

    @property
    def _making(self) -> Path:
        """There as long as a new database has not served yet."""
        return self._folder / "superlink.making"

    def _drop_half_made(self) -> None:
        """A first start that was interrupted leaves tables that the server takes for damaged; nothing is in them."""
        if self._making.exists():
            for path in self._folder.glob("superlink.db*"):
                path.unlink()
        if not (self._folder / "superlink.db").exists():
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._making.touch()

    def _server(self) -> Program:
        files = self.layout.server
        return self._program(
            "superlink",
            _SERVER,
            [
                *(sys.executable, "-m", "server.superlink"),
                *("--private", self.layout.private, "--public", self.layout.public),
                *("--certificate", files.certificate, "--key", files.key, "--ca", files.ca),
                *("--database", self._folder / "superlink.db", "--secret", self.layout.secret),
            ],
        )

    def _executor(self) -> Program:
        return self._program(
            "executor",
            _EXECUTOR,
            [
                *("flower-superexec", "--runtime-api-address", self.layout.private),
                *("--root-certificates", self.layout.server.ca),
                *("--superexec-auth-secret-file", self.layout.secret),
            ],
        )

    def _agent(self, site: SiteProcesses) -> Program:
        name = f"agent-{site.name}"
        return self._program(
            name,
            _AGENT,
            [
                *(sys.executable, "-m", site.agent, "--site", site.settings),
                *("--socket", self._socket(site), "--status", self._status(site, "agent")),
            ],
            prefix=network_isolation(),
        )

    def _link(self, site: SiteProcesses) -> Program:
        name = f"link-{site.name}"
        return self._program(
            name,
            _LINK,
            [
                *(sys.executable, "-m", "client.link", "--superlink", self.layout.public),
                *("--ca", self.layout.server.ca, "--key", site.node_key),
                *("--agent", self._socket(site), "--state", self._status(site, "link").parent),
            ],
        )

    def _program(self, name: str, rank: int, command: list[str | Path], prefix: tuple[str, ...] = ()) -> Program:
        home = self._folder / name
        words = [str(word.absolute()) if isinstance(word, Path) else word for word in command]
        return Program(
            name=name,
            command=words,
            environment=environment(home),
            folder=home,
            log=self._folder / "logs" / f"{name}.log",
            rank=rank,
            prefix=prefix,
        )

    def _status(self, site: SiteProcesses, kind: str) -> Path:
        return (site.run / kind if site.run else self._folder / f"{kind}-{site.name}") / f"{kind}.json"

    def _socket(self, site: SiteProcesses) -> Path:
        return self._sockets / f"{self.layout.sites.index(site)}.sock"


def free_address() -> str:
    """A loopback HOST:PORT that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"

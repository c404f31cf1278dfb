"""A site's two processes on its own host: the agent that touches records, and the link that has the network."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from client.site import SiteSettings
from common.errors import Code, Refusal
from common.lock import alone, hold, site_lock
from common.status_file import forget_process, read_status, refusal_in
from common.supervision import Program, Supervisor
from common.surroundings import environment, listens, network_isolation, socket_folder

LOOK_SECONDS = 0.2
_AGENT, _LINK = range(2)  # ranks: the link leaves first


class SiteUp:
    """Agent and link of one site, restarted when they die. A context manager: nothing is left running.

    superlink  HOST:PORT of the federation's public listener
    Only one at a time for a site's state folder: a second one would take its orders and answer them with nothing.
    """

    def __init__(self, site_toml: Path, settings: SiteSettings, superlink: str):
        self._site_toml, self._settings, self._superlink = site_toml.resolve(), settings, superlink
        self._folder = Path(settings.state) / "run"
        self._ends = ExitStack()

    def __enter__(self) -> SiteUp:
        """Start the agent. Errors: Refusal ALREADY_RUNNING; then nothing was started or changed."""
        with ExitStack() as ends:
            ends.enter_context(hold(site_lock(self._folder), alone(self._settings.name, "hushfed site up")))
            link_status(self._folder).unlink(missing_ok=True)  # what an earlier process said of itself
            forget_process(agent_status(self._folder))
            self._sockets = socket_folder(self._folder)
            ends.callback(shutil.rmtree, self._sockets, ignore_errors=True)
            self._supervisor = Supervisor()
            ends.callback(self._supervisor.stop)
            self._supervisor.start([self._agent(self._site_toml)])
            self._ends = ends.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ends.close()

    def wait_joined(self, seconds: float) -> dict[str, Any]:
        """Start the link once the agent serves; the link's status once the server has admitted it.

        Errors: the Refusal of a process that refuses to run; FEDERATION_UNREACHABLE or PROCESS_FAILED when time is up.
        """
        end = time.monotonic() + seconds
        self._until(lambda: listens(self._socket), end, seconds)
        ca, key = Path(self._settings.federation.ca), self._site_toml.parent / "node.key"
        self._supervisor.start([self._link(ca, key, self._superlink)])
        self._until(lambda: bool(read_status(link_status(self._folder)).get("joined")), end, seconds)
        return read_status(link_status(self._folder))

    def refuse_if_refused(self) -> None:
        """Errors: the Refusal of a process that will not run again before its keeper acts. One alone is no site."""
        for name, state in self._supervisor.states().items():
            if state == "refused":
                raise self._failed(name)

    def pids(self) -> dict[str, int]:
        """Process ids of "agent" and "link"."""
        return self._supervisor.pids()

    def _until(self, ready: Callable[[], bool], end: float, seconds: float) -> None:
        while not ready():
            self.refuse_if_refused()
            if time.monotonic() >= end:
                raise self._late(seconds)
            time.sleep(LOOK_SECONDS)

    def _failed(self, name: str) -> Refusal:
        """In the process's own words, where it left any."""
        path = link_status(self._folder) if name == "link" else agent_status(self._folder)
        if told := refusal_in(read_status(path)):
            return told
        return Refusal(
            Code.PROCESS_FAILED, "Site not running", f"its {name} ended and gave no reason", f"Read {self._log(name)}"
        )

    def _late(self, seconds: float) -> Refusal:
        """The refusal when nobody refused, and yet nothing came."""
        if read_status(link_status(self._folder)).get("error") == Code.FEDERATION_UNREACHABLE.value:
            why = f"the server at {self._superlink} did not answer for {seconds:g} s"
            do = f"Check that it runs and that its address is right; {self._log('link')} has the details"
            return Refusal(Code.FEDERATION_UNREACHABLE, "Site not joined", why, do)
        if "link" not in self._supervisor.states():
            why = f"its agent did not serve within {seconds:g} s"
            return Refusal(Code.PROCESS_FAILED, "Site not joined", why, f"Read {self._log('agent')}")
        why = f"the server did not admit it within {seconds:g} s"
        return Refusal(Code.PROCESS_FAILED, "Site not joined", why, f"Read {self._log('link')}")

    def _log(self, name: str) -> Path:
        return self._folder / "logs" / f"{name}.log"

    def _agent(self, site_toml: Path) -> Program:
        words = [sys.executable, "-m", "client.agent", "--site", str(site_toml), "--socket", str(self._socket)]
        return self._program(
            "agent", _AGENT, [*words, "--status", str(agent_status(self._folder))], network_isolation()
        )

    def _link(self, ca: Path, key: Path, superlink: str) -> Program:
        words = [sys.executable, "-m", "client.link", "--superlink", superlink, "--ca", str(ca), "--key", str(key)]
        state = link_status(self._folder).parent
        return self._program("link", _LINK, [*words, "--agent", str(self._socket), "--state", str(state)])

    def _program(self, name: str, rank: int, command: list[str], prefix: tuple[str, ...] = ()) -> Program:
        home = self._folder / name
        return Program(
            name=name,
            command=command,
            environment=environment(home),
            folder=home,
            log=self._log(name),
            rank=rank,
            prefix=prefix,
        )

    @property
    def _socket(self) -> Path:
        return self._sockets / "agent.sock"


def link_status(folder: Path) -> Path:
    """Where the link of the site says how it fares."""
    return folder / "link" / "link.json"


def agent_status(folder: Path) -> Path:
    """Where the agent of the site says whether it is isolated, and what it refused last."""
    return folder / "agent" / "agent.json"

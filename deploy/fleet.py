"""What an operator asks of the coordination server: admit a key, revoke it, start a run, watch it, stop it."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import httpx
from flwr.cli.build import build_fab_from_files
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab

from common.errors import Code, Refusal

Setting = str | int | float | bool
Ending = Literal["", "completed", "failed", "stopped"]

SERVER_APP = "server.app:app"
SETTINGS: Mapping[str, Setting] = {"federation": "", "job": "", "state": "", "resume": False}
LICENSE = b"Apache License, Version 2.0. See http://www.apache.org/licenses/LICENSE-2.0\n"


@dataclass(frozen=True)
class NodeState:
    """A node as the server sees it. `online` is up to 20 s behind for a node that was killed."""

    number: int
    name: str
    public: bytes
    online: bool


@dataclass(frozen=True)
class RunState:
    """A run: where it stands, how it ended (empty until then), and what the server says about it."""

    number: int
    status: str
    ending: Ending
    details: str

    @property
    def finished(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status == "finished"


class FleetControl:
    """The private listener of the coordination server. Whoever reaches it rules the federation: loopback only."""

    def __init__(self, address: str, ca: Path) -> None:
        trust = ssl.create_default_context(cafile=str(ca))
        self._client = ControlHttpClient(f"https://{address}", verify=trust, timeout=20.0)

    def admit(self, public: bytes, name: str) -> int:
        """Register the node key `public` (PEM) and return the node's number. A key that is known stays so."""
        known = {node.public: node.number for node in self.nodes()}
        if public in known:
            return known[public]
        with _clear("Key not registered"):
            return int(self._client.RegisterNode(RegisterNodeRequest(public_key=public, name=name)).node_id)

    def revoke(self, public: bytes) -> None:
        """Take the node key back; it can never be used again. Errors: Refusal KEY_REFUSED if nobody has it."""
        known = {node.public: node.number for node in self.nodes()}
        if public not in known:
            raise Refusal(Code.KEY_REFUSED, "Key not revoked", "the server does not know it", "List the nodes")
        with _clear("Key not revoked"):
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=known[public]))

    def nodes(self) -> tuple[NodeState, ...]:
        """The nodes whose key is admitted."""
        with _clear("Nodes not listed"):
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return tuple(
            NodeState(node.node_id, node.name, node.public_key, node.status == "online")
            for node in found
            if node.status != "unregistered"
        )

    def start(self, settings: Mapping[str, Setting], bundle: bytes) -> int:
        """Start a run of `bundle` with `settings` and return its number."""
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=user_config_to_proto(dict(settings)))
        with _clear("Run not started"):
            return int(self._client.StartRun(request).run_id)

    def run(self, number: int) -> RunState:
        """Where the run stands. Errors: Refusal RUN_UNKNOWN."""
        with _clear("Run not found"):
            found = self._client.ListRuns(ListRunsRequest(run_id=number)).run_dict
        if number not in found:
            raise Refusal(
                Code.RUN_UNKNOWN, f"Run {number} not found", "the server has none of that number", "List the runs"
            )
        status = found[number].status
        return RunState(number, status.status, cast("Ending", status.sub_status), status.details)

    def stop(self, number: int) -> None:
        """Stop the run. Sites finish the order in hand; its reply is thrown away."""
        with _clear("Run not stopped"):
            self._client.StopRun(StopRunRequest(run_id=number))

    def log(self, number: int) -> str:
        """What the coordinator printed in a finished run."""
        with _clear("Log not read"):
            parts = self._client.StreamLogs(StreamLogsRequest(run_id=number))
            return "".join(part.log_output for part in parts)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def make_bundle(server_app: str = SERVER_APP, settings: Mapping[str, Setting] = SETTINGS) -> bytes:
    """The bundle that a run is submitted with: settings and a licence, no code.

    Guarantee: it holds no Python file; server and sites run what their operators installed.
    server_app  "module:name", importable where the executor runs
    settings    every setting that a run may give, with its default
    """
    lines = "".join(f"{name} = {_toml(value)}\n" for name, value in settings.items())
    project = (
        '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n\n'
        '[project]\nname = "hushfed"\nversion = "1.0.0"\ndescription = "Settings of a run; no code"\n'
        'license = { file = "LICENSE" }\ndependencies = []\n\n'
        '[tool.flwr.app]\npublisher = "hushfed"\n\n'
        f'[tool.flwr.app.components]\nserverapp = "{server_app}"\nclientapp = "{server_app}"\n\n'
        f"[tool.flwr.app.config]\n{lines}"
    )
    bundle: bytes = build_fab_from_files({"pyproject.toml": project.encode(), "LICENSE": LICENSE})[0]
    return bundle


def is_healthy(address: str, ca: Path) -> bool:
    """Whether the server at `address` answers, with a certificate of `ca`."""
    try:
        trust = ssl.create_default_context(cafile=str(ca))
        return httpx.get(f"https://{address}/health", verify=trust, timeout=1.0).is_success
    except httpx.HTTPError:
        return False


def _toml(value: Setting) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


@contextmanager
def _clear(what: str) -> Iterator[None]:
    """Errors of Flower and of the line as a Refusal."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        said = FlowerError.from_json(error.response.text)
        why = said.message if said else f"the server answered {error.response.status_code}"
        raise Refusal(Code.PROCESS_FAILED, what, why, "Read the server's log") from error
    except httpx.HTTPError as error:
        raise Refusal(
            Code.FEDERATION_UNREACHABLE, what, f"the server does not answer ({error})", "Start it, or check the address"
        ) from error

"""The process of a site that touches records: it serves orders on a Unix socket and has no network."""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import grpc

from client.agent_channel import OPTIONS, SERVICE
from client.refused import LastRefusal
from common.config import read_table
from common.errors import Code, Refusal
from common.lock import Purpose, hold
from common.status_file import last_refusal, read_status, write_refusal, write_status
from common.surroundings import listens

Handler = Callable[[bytes], bytes]
Refuse = Callable[[Code], bytes]
Isolation = Literal["none", "netns"]

log = logging.getLogger(__name__)

TURN_SECONDS = 1.0  # how long an order waits for the one before it
GRACE_SECONDS = 2.0  # how long an order may go on after SIGTERM
SOCKET_PATH_LIMIT = 107  # bytes, of the operating system
_HEALTHY = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse with status SERVING


class Turnstile:
    """One order at a time; nothing but a typed refusal leaves when it fails."""

    def __init__(self, handler: Handler, refuse: Refuse | None) -> None:
        self._handler, self._refuse, self._turn = handler, refuse, threading.Lock()

    def pass_through(self, frame: bytes, context: grpc.ServicerContext) -> bytes:
        """The reply to `frame`. A second order waits TURN_SECONDS, then ends as AGENT_BUSY."""
        if not self._turn.acquire(timeout=TURN_SECONDS):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, Code.AGENT_BUSY.value)
        try:
            return self._handler(frame)
        except Refusal as refusal:
            log.warning("order refused: %s", refusal)
            code = refusal.code
        except Exception:  # whatever went wrong, its text may quote a record
            log.exception("order failed")
            code = Code.INTERNAL
        finally:
            self._turn.release()
        if self._refuse is None:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, code.value)
        return self._refuse(code)

    @property
    def busy(self) -> bool:
        """Whether an order is being worked on."""
        return self._turn.locked()


def serve(handler: Handler, socket_path: Path, refuse: Refuse | None = None) -> None:
    """Serve `handler` at `socket_path` until SIGTERM or SIGINT.

    handler  bytes of an order to bytes of a reply; called by one thread at a time
    refuse   makes the reply that carries a code and nothing else; without it the code is the status of the call
    Guarantee: no exception, and no text of one, reaches the caller.
    Errors: Refusal CONFIG_INVALID for a path that is too long, PROCESS_FAILED if another agent holds the socket.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    turnstile = Turnstile(handler, refuse)
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=OPTIONS)
    server.add_generic_rpc_handlers((_service(turnstile), _health()))
    _bind(server, socket_path)
    server.start()
    stopping.wait()
    server.stop(GRACE_SECONDS).wait()
    socket_path.unlink(missing_ok=True)
    if turnstile.busy:  # a computation cannot be interrupted; what it was charged is on disk
        log.warning("stopped in the middle of an order")
        logging.shutdown()
        os._exit(0)


def network_reachable() -> bool:
    """Whether this process could reach a network: an interface other than the loopback exists and is up."""
    return any(name != "lo" and _is_up(name) for _, name in socket.if_nameindex())


def isolation() -> Isolation:
    """ "netns" if the process has no network to use, else "none"."""
    return "none" if network_reachable() else "netns"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m client.agent`. Ends with 3 and the refusal if the site cannot be opened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", required=True, type=Path, help="the site's settings (site.toml)")
    parser.add_argument("--socket", required=True, type=Path, help="where the link reaches this process")
    parser.add_argument(
        "--status", type=Path, help="file that tells how this process is isolated, and what it refused last"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        with hold(*_lock(options.site)):
            _work(options.site, options.socket, options.status)
    except Refusal as refusal:
        log.error("%s", refusal)
        write_refusal(options.status, refusal)
        sys.exit(3)


def _work(site: Path, socket_path: Path, status: Path | None) -> None:
    fields = {"isolation": isolation(), "pid": os.getpid(), "since": time.time()}
    before = last_refusal(read_status(status))  # of the agent before this one: its keeper may not have seen it yet
    write_status(status, fields | ({"last_refusal": before} if before else {}))
    if status is not None:
        logging.getLogger().addHandler(LastRefusal(status, fields))
    if isolation() == "none":
        log.warning("this process has a network; start it in a network namespace of its own")
    # Only here: a refusal about the command line must not wait for the learning libraries.
    from client.session import open_session

    with open_session(site) as session:
        serve(session, socket_path, session.refuse)


def _lock(site: Path) -> tuple[Path, Purpose]:
    """The lock of the site's agent, and what it is for. Errors: Refusal FILE_MISSING, CONFIG_INVALID."""
    table = read_table(site)  # no more of it: what reads all settings loads the learning libraries
    state = site.resolve().parent / str(table.get("state", "state"))
    what = f"Agent of {str(table.get('name'))!r} not started"
    return state / "agent.lock", Purpose(by="client.agent", what=what, harm="two agents would charge one ledger")


def _service(turnstile: Turnstile) -> grpc.GenericRpcHandler[bytes, bytes]:
    handle = grpc.unary_unary_rpc_method_handler(turnstile.pass_through)
    return grpc.method_handlers_generic_handler(SERVICE, {"Handle": handle})


def _health() -> grpc.GenericRpcHandler[bytes, bytes]:
    """gRPC's health service, whose only answer is two bytes: the process listens."""
    check = grpc.unary_unary_rpc_method_handler(lambda _request, _context: _HEALTHY)
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})


def _bind(server: grpc.Server, path: Path) -> None:
    """Listen at `path` in a folder that only its owner enters; a socket that a killed agent left is removed."""
    path = path.absolute()
    if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
        raise Refusal(
            Code.CONFIG_INVALID,
            f"{path} cannot be a socket",
            f"the system allows {SOCKET_PATH_LIMIT} bytes",
            "Choose a shorter folder",
        )
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_mode & 0o077:
        raise Refusal(
            Code.CONFIG_INVALID, f"{path} not served", "others may enter its folder", f"chmod 700 {path.parent}"
        )
    if listens(path):
        raise Refusal(Code.PROCESS_FAILED, f"{path} not served", "another agent serves it", "Stop that agent first")
    path.unlink(missing_ok=True)
    server.add_insecure_port(f"unix:{path}")
    path.chmod(0o600)


def _is_up(interface: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, 0x8913, struct.pack("16s16x", interface.encode()[:15]))  # SIOCGIFFLAGS
        except OSError:
            return False
    return bool(struct.unpack_from("H", answer, 16)[0] & 1)  # IFF_UP


if __name__ == "__main__":
    main()

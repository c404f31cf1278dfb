"""Ray under Flower's simulation engine: a cluster that runs already, or one on this machine for one run alone."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from common.config import finite, load
from common.errors import Code, Refusal
from common.surroundings import socket_folder

ADDRESS, CPUS, GPUS = "RAY_ADDRESS", "HUSHFED_RAY_CPUS", "HUSHFED_RAY_GPUS"
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}  # the second ends a warning
LONGEST_FOLDER = 20  # bytes; sockets lie some way under it, and their paths may have 107
LOOK_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Where Ray runs, and what one worker takes of it. Changes nothing about a result but rounding.

    address  of a cluster that runs already, HOST:PORT of its head, or "auto" on one of its machines; left out, Ray is
             started on this machine, and ended with the run
    cpus     processors a worker; it has one thread, so more only make fewer workers, each with more memory
    gpus     graphics cards a worker, or a share of one; above 0 its sites are taught on CUDA
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        finite(self.cpus, "ray cpus", above=0, at_most=4096)
        finite(self.gpus, "ray gpus", at_least=0, at_most=64)
        if self.address is not None and "://" in self.address:
            why = "a client outside of the cluster cannot hold Flower's actors"
            raise Refusal(
                Code.CONFIG_INVALID, f"address = {self.address!r}", why, "Start it on a machine of the cluster"
            )

    @classmethod
    def of(cls, surroundings: Mapping[str, str], changes: Mapping[str, Any] | None = None) -> ClusterSettings:
        """What the environment says (RAY_ADDRESS, HUSHFED_RAY_CPUS, HUSHFED_RAY_GPUS), then `changes` by name.

        Errors: Refusal CONFIG_INVALID.
        """
        table: dict[str, Any] = {"address": surroundings[ADDRESS]} if surroundings.get(ADDRESS) else {}
        table |= {
            name: _number(place, text)
            for name, place in (("cpus", CPUS), ("gpus", GPUS))
            if (text := surroundings.get(place))
        }
        return load(cls, {**table, **(changes or {})}, "ray")

    @property
    def resources(self) -> dict[str, float]:
        """As Ray names what an actor takes."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


def refuse_absent() -> None:
    """Errors: Refusal PART_MISSING where Ray is not installed."""
    if find_spec("ray") is None:
        do = "Run `pip install 'hushfed[ray]'`, on every machine of the cluster"
        raise Refusal(Code.PART_MISSING, "The engine ray", "Ray is not installed here", do)


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """Inside, this process is a driver of Ray.

    Guarantee: afterwards no process is left that was started here, nor a file of theirs, whatever happened inside; the
    environment and the handling of signals are those of before. No statistics are sent to Ray's makers.
    Errors: Refusal ALREADY_RUNNING inside of another use of Ray, CONFIG_INVALID where no cluster can be reached.
    """
    import ray

    if ray.is_initialized():
        why = "it would be shut down with the run"
        raise Refusal(Code.ALREADY_RUNNING, "This process uses Ray already", why, "Call ray.shutdown() first")
    with ExitStack() as stack:
        stack.enter_context(_environment(QUIET))
        handle = stack.enter_context(_signals())
        stack.enter_context(_unprinted())
        where = {"address": settings.address} if settings.address else _here(stack)
        _look(settings.address)
        stack.callback(ray.shutdown)
        try:
            ray.init(**where, logging_level=logging.CRITICAL, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            what = f"No connection to Ray at {settings.address or 'this machine'}"
            why = str(error).strip().splitlines()[0].rstrip(".") or type(error).__name__
            raise Refusal(
                Code.CONFIG_INVALID, what, why, "Look whether it runs, with the same Python and Ray"
            ) from error
        handle()
        yield


def _here(stack: ExitStack) -> dict[str, Any]:
    """A cluster of this machine alone, as many processors as this process may use; its folder goes with `stack`.

    Ray listens on every network, so only who knows the run's own token is heard. Folders that killed runs have left are
    removed on the way.
    """
    stack.enter_context(_token())
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > LONGEST_FOLDER:
        parent = "/tmp"  # noqa: S108  # the folder itself is made anew, for this user alone
    folder = socket_folder(Path(parent))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return {
        "address": "local",
        "num_cpus": len(os.sched_getaffinity(0)),
        "include_dashboard": False,
        "_temp_dir": str(folder),
        # What does not fit into memory does not go to disk; and workers are no less important than their driver.
        "_system_config": {"automatic_object_spilling_enabled": False, "worker_niceness": 0},
    }


def _look(address: str | None) -> None:
    """Ray itself would try for a minute. Errors: Refusal CONFIG_INVALID where nobody listens at HOST:PORT."""
    if address is None or ":" not in address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=LOOK_SECONDS).close()
    except (OSError, ValueError, OverflowError):
        do = "Start the cluster, or correct the address"
        raise Refusal(Code.CONFIG_INVALID, f"No Ray cluster at {address}", "nobody listens there", do) from None


@contextmanager
def _token() -> Iterator[None]:
    """Inside, what Ray starts and joins demands a new secret token."""
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

    def read_again() -> None:
        AuthenticationTokenLoader.instance().reset_cache()
        Config.initialize("")

    try:
        with _environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}):
            read_again()
            yield
    finally:
        read_again()


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """The environment with `changes`, and afterwards as it was, whatever was written into it."""
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _unprinted() -> Iterator[None]:
    """Ray prints on standard output what becomes of workers, whatever it is told; results are printed there."""
    from ray._private import worker

    before = worker.print_to_stdstream
    worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield
    finally:
        worker.print_to_stdstream = before


@contextmanager
def _signals() -> Iterator[Callable[[], None]]:
    """SIGTERM, which Ray handles by aborting, ends a run in good order; afterwards it is handled as before.

    Yields what has to be called once Ray is there.
    """
    before = signal.getsignal(signal.SIGTERM)
    ours = threading.current_thread() is threading.main_thread() and before is not None

    def handle() -> None:
        if ours:
            signal.signal(signal.SIGTERM, _leave if before is signal.SIG_DFL else before)

    try:
        yield handle
    finally:
        if ours:
            signal.signal(signal.SIGTERM, before)


def _leave(_number: int, _frame: FrameType | None) -> None:
    """As Ctrl-C, so that what is open is closed on the way out."""
    raise KeyboardInterrupt


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Refusal(Code.CONFIG_INVALID, f"{name} = {text!r}", "it is no number", "Correct it") from None

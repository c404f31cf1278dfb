"""Flower's simulation engine on Ray as a line to workers: its ServerApp passes errands on, its ClientApp does them.

`flwr.simulation.run_simulation` really runs: ServerApp, Grid, simulated SuperNodes, ClientApp and Ray backend are
Flower's and carry every errand. Two things differ from its usual use. A SuperNode is no site but the seat of a worker,
and an errand is for all sites that a worker computes: Flower looks through all its nodes at every poll and pickles app
and content of every message, which a node for each site would pay for each site. And the coordinator does not run
inside the ServerApp but hands its errands there, so that Ctrl-C, refusals and checkpoints are as with every engine.

Private symbols of Flower: `pool_size_from_resources`, with which its backend counts actors; and its telemetry, whose
switch in the environment is read at its import only.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Queue
from typing import Any, NamedTuple, cast

import psutil
import ray
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid, ServerApp
from flwr.supercore import telemetry

from common.errors import Code, Refusal
from simulations.engines.errands import carried_out

with warnings.catch_warnings():  # it would have warnings of the whole process shown
    from flwr.simulation import run_simulation
    from flwr.simulation.ray_transport.ray_actor import pool_size_from_resources

POLL_SECONDS, LOOK_SECONDS, LAST_SECONDS = 0.005, 2.0, 8.0

telemetry.FLWR_TELEMETRY_ENABLED = "0"
telemetry.state["source"] = "unavailable"  # or a number would be drawn for this machine and kept in the home folder
WORKER = ClientApp()


@WORKER.train()
def answer(message: Message, context: Context) -> Message:  # noqa: ARG001  # as Flower calls it
    """At a worker: carry out the errand of a message, and say who did it."""
    here, frame = ray.get_runtime_context(), message.content.config_records["errand"]["frame"]
    said: dict[str, Any] = {"frame": carried_out(cast("bytes", frame))}
    said |= {"name": here.get_actor_id(), "machine": here.get_node_id(), "process": os.getpid()}
    said["actor"] = ray.cloudpickle.dumps(here.current_actor)  # type: ignore[no-untyped-call]  # Ray leaves it untyped
    return Message(RecordDict({"said": ConfigRecord(said)}), reply_to=message)


def seats(resources: Mapping[str, float]) -> int:
    """How many workers fit onto the machines of the connected cluster, as Flower counts them."""
    with _quiet(), suppress(ValueError):  # so it says that there is no room
        return int(pool_size_from_resources(dict(resources)))
    return 0


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Flower's log: what goes wrong is told by whoever asked."""
    log = logging.getLogger("flwr")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(level)


class _Asked(NamedTuple):
    """Errands, and the moment (monotonic clock) after which nobody waits for them."""

    errands: Sequence[bytes]
    until: float


_Heard = list[bytes | Refusal | None]


class Runtime:
    """Flower's runtime over the connected cluster, in a thread of its own. One at a time.

    seats     workers, as many as fit      machines  ids of the machines whose workers have answered so far
    Errors: Refusal CONFIG_INVALID where none fits.
    """

    def __init__(self, resources: Mapping[str, float]):
        self.seats, self._resources = seats(resources), dict(resources)
        if not self.seats:
            what = f"Workers of {resources['num_cpus']:g} processors and {resources['num_gpus']:g} graphics cards"
            raise Refusal(Code.CONFIG_INVALID, what, "none fits onto a machine of the cluster", "Ask for less")
        self.machines: set[str] = set()
        self._actors: dict[str, Any] = {}
        self._processes: list[psutil.Process] = []
        self._asked, self._heard = Queue[_Asked | None](), Queue[_Heard | None]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flower", daemon=True)
        self._thread.start()

    def ask(self, errands: Sequence[bytes], seconds: float = math.inf) -> list[bytes | None]:
        """The answer to each errand, None where its worker or any machine was lost before, or `seconds` passed.

        Errors: Refusal INTERNAL for a fault at a worker, PROCESS_FAILED if the runtime itself ended.
        """
        self._asked.put(_Asked(errands, time.monotonic() + seconds))
        heard = self._heard.get()
        if heard is None:
            why = "it crashed, or Ray did"
            raise Refusal(
                Code.PROCESS_FAILED, "Flower's simulation engine ended", why, "Look at the cluster's machines"
            )
        found: list[bytes | None] = []
        for each in heard:
            if isinstance(each, Refusal):
                raise each
            found.append(each)
        return found

    def close(self) -> None:
        """End workers and runtime; what they still compute is not waited for."""
        self._stop.set()
        self._asked.put(None)
        for actor in list(self._actors.values()):
            with suppress(Exception):  # it is gone already
                ray.kill(actor)
        for process in self._processes:  # Ray waits for one that hangs, and Flower for Ray
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._thread.join(LAST_SECONDS)

    def _run(self) -> None:
        """The life of the thread: whoever waits when it ends is told so."""
        app = ServerApp()
        app.main()(self._serve)
        config: Any = {"client_resources": self._resources, "init_args": {}}
        try:
            with _quiet(), suppress(Exception):
                run_simulation(app, WORKER, self.seats, backend_config=config)
        finally:
            self._stop.set()
            self._asked.put(None)
            self._heard.put(None)

    def _serve(self, grid: Grid, context: Context) -> None:
        """The ServerApp: errands out, answers in, until there are no more."""
        nodes: list[int] = []
        while len(nodes) < self.seats and not self._stop.wait(POLL_SECONDS):
            nodes = sorted(grid.get_node_ids())
        while (asked := self._asked.get()) is not None:
            self._heard.put(self._answers(grid, nodes, asked))

    def _answers(self, grid: Grid, nodes: Sequence[int], asked: _Asked) -> _Heard:
        sent = [
            Message(RecordDict({"errand": ConfigRecord({"frame": frame})}), nodes[place % len(nodes)], "train")
            for place, frame in enumerate(asked.errands)
        ]
        places = {number: place for place, number in enumerate(grid.push_messages(sent))}
        found: _Heard = [None] * len(sent)
        look = time.monotonic() + LOOK_SECONDS
        while places and time.monotonic() < asked.until and not self._stop.is_set():
            for reply in grid.pull_messages(list(places)):
                found[places.pop(reply.metadata.reply_to_message_id)] = self._said(reply)
            if time.monotonic() > look:
                look += LOOK_SECONDS
                if seats(self._resources) < self.seats:  # what was to run on a lost machine would wait for ever
                    break
            if places:
                self._stop.wait(POLL_SECONDS)
        return found

    def _said(self, reply: Message) -> bytes | Refusal | None:
        """What a reply holds; None if its worker was lost."""
        if reply.has_error():
            if reply.error.code == ErrorCode.UNKNOWN:
                return None
            why = f"Flower says: {reply.error.reason}"
            return Refusal(Code.INTERNAL, "A worker of the simulation failed", why, "Please report it")
        said: dict[str, Any] = dict(reply.content.config_records["said"])
        self._meet(said)
        return cast("bytes", said["frame"])

    def _meet(self, said: Mapping[str, Any]) -> None:
        """Remember a worker, so that it can be ended whatever it does; of those here also the process."""
        self.machines.add(said["machine"])
        if said["name"] in self._actors:
            return
        self._actors[said["name"]] = ray.cloudpickle.loads(said["actor"])
        if said["machine"] == ray.get_runtime_context().get_node_id():
            with suppress(psutil.NoSuchProcess):
                self._processes.append(psutil.Process(said["process"]))

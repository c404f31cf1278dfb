"""Worker processes for cells: one thread each, and each may die without taking anything along."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from common.errors import Code, Refusal
from common.faults import refusal_of_system
from simulations.study.results import Result
from simulations.study.store import Store

Player = Callable[[bytes, Path], Result]
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PROBE_BYTES = 1 << 20
END_SECONDS = 5.0


@dataclass(frozen=True)
class Order:
    """One cell to play: its id and its canonical bytes."""

    cell: str
    form: bytes = field(repr=False)


@dataclass(frozen=True)
class Done:
    """An order whose result is on disk."""

    order: Order
    result: Result


@dataclass(eq=False)
class Worker:
    """A process that plays one cell after the other."""

    process: SpawnProcess
    line: Connection
    seat: int
    order: Order | None = None


class Crew:
    """Workers for the cells of one study; a context manager that leaves no process behind.

    player  "module:function", a `Player`
    """

    def __init__(self, store: Store, player: str, count: int):
        self._store, self._player, self._count = store, player, count
        self._workers: list[Worker] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.line.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(END_SECONDS)
            worker.process.kill()
            worker.process.join()
        self._workers.clear()

    def play(self, orders: Iterable[Order]) -> Iterator[Done]:
        """Each order's end, in whatever order they end. A worker that dies ends its own cell only, as an error.

        Errors: Refusal FILE_UNWRITABLE where results cannot be stored, PROCESS_FAILED if no worker can be started.
        """
        waiting = deque(orders)
        while waiting or self._workers:
            while waiting and len(self._workers) < self._count:
                free = min(set(range(self._count)).difference(worker.seat for worker in self._workers))
                self._workers.append(_hired(str(self._store.folder), self._player, free))
            for line in wait([worker.line for worker in self._workers]):
                worker = next(each for each in self._workers if each.line is line)
                done = self._heard(worker)
                if done:
                    yield done
                if worker in self._workers:
                    self._next(worker, waiting)

    def _heard(self, worker: Worker) -> Done | None:
        """What a worker says: that it is ready, that its cell is done, or, by silence, that it died."""
        order = worker.order
        try:
            said = worker.line.recv()
        except (EOFError, OSError):
            return self._buried(worker)
        if isinstance(said, dict):
            raise Refusal(**{**said, "code": Code(said["code"])})
        worker.order = None
        return Done(order, said) if order and isinstance(said, Result) else None

    def _next(self, worker: Worker, waiting: deque[Order]) -> None:
        if not waiting:
            self._workers.remove(worker)
            worker.line.close()
            worker.process.join()
            return
        worker.order = waiting.popleft()
        with suppress(OSError):  # it died meanwhile, as it will say
            worker.line.send(worker.order)

    def _buried(self, worker: Worker) -> Done:
        """The end of a worker that died: an error of the cell it played, at once on disk."""
        self._workers.remove(worker)
        worker.line.close()
        worker.process.join()
        code, order = worker.process.exitcode or 0, worker.order
        how = f"its process was ended by {signal.Signals(-code).name}" if code < 0 else f"its process ended with {code}"
        if order is None:
            raise Refusal(
                Code.PROCESS_FAILED, "Study not played", f"no worker starts: {how}", "Look above for its words"
            )
        result = Result(status="error", code=Code.PROCESS_FAILED.value, why=how)
        with _disk(self._store):
            self._store.begin(order.cell)
            self._store.commit(order.cell, order.form, result)
        return Done(order, result)


def _hired(folder: str, player: str, seat: int) -> Worker:
    """A new worker, the `seat`-th of its crew; its libraries see one thread."""
    context = get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=serve, args=(its, folder, player, seat), daemon=True)
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for us, from its first moment on
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        its.close()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    return Worker(process, ours, seat)


def serve(line: Connection, folder: str, player: str, seat: int) -> None:
    """The life of a worker: say that it is ready, then play what it is told until the line closes.

    It has one processor, so that an engine which spreads over all that it has forms its sums in one order here, and a
    result depends neither on this machine nor on who works beside it.
    It never hears Ctrl-C: that is for the process that started it, which ends it. If that one is killed, it ends at
    once as well.
    """
    mine = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {mine[seat % len(mine)]})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    store = Store(Path(folder))
    module, _, name = player.partition(":")
    play: Player = getattr(import_module(module), name)
    with suppress(EOFError, OSError):
        line.send(None)
        while True:
            order: Order = line.recv()
            try:
                result = _played(store, play, order)
            except Refusal as refusal:
                line.send(refusal.as_dict())
                return
            line.send(result)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)


def _played(store: Store, play: Player, order: Order) -> Result:
    """Play one cell and store its result. Errors: Refusal FILE_UNWRITABLE, and then the cell has not begun."""
    with _disk(store):
        part = store.begin(order.cell)
        try:
            result = play(order.form, part)
            if result.status != "completed":
                _probe(part)  # a failure beside a full disk is the disk's
            store.commit(order.cell, order.form, result)
        except BaseException:
            store.drop(order.cell)
            raise
    return result


def _probe(part: Path) -> None:
    """Write a little and remove it. Errors: OSError where the disk takes no more."""
    path = part / "probe"
    try:
        with path.open("wb") as file:
            file.write(bytes(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _disk(store: Store) -> Iterator[None]:
    """An error of the disk, as the refusal that stops a study."""
    try:
        yield
    except OSError as error:
        known = refusal_of_system(error)
        why = known.why if known else (error.strerror or type(error).__name__).lower()
        do = "Free some space or mend the disk, then go on with `hushfed simulate resume`; whole cells are kept"
        raise Refusal(Code.FILE_UNWRITABLE, f"Study in {store.folder} stopped", why, do) from error

"""SecAgg+ of the installed Flower: whole rounds of its own workflow and its own client code, in one process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code as FlowerCode
from flwr.common import FitIns, FitRes, Parameters, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key
from flwr.common.serde import recorddict_to_proto
from flwr.compat.common import recorddict_compat as compat
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import Strategy
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.server.workflow.secure_aggregation.secaggplus_workflow import SecAggPlusWorkflow, WorkflowState
from flwr.serverapp.grid import Grid
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

STAGES = ("setup", "share_keys", "collect_masked_vectors", "unmask")
FAILED = 1  # error code of a site's reply
Vector = NDArray[np.floating[Any]]
Tamper = Callable[[str, Message], Message]


@dataclass
class FlowerSite:
    """One site: Flower's client modification around a training that is given.

    node      Flower's id of it
    train     from the parameters it receives to those it returns, [d]
    examples  its num_examples
    context   where Flower keeps the site's state, secrets included
    seconds   CPU seconds in Flower's code, by stage, training excluded
    sent      bytes of its replies' contents, by stage
    """

    node: int
    train: Callable[[Vector], Vector]
    examples: int = 1
    context: Context = field(init=False, repr=False)
    seconds: dict[str, float] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.context = Context(run_id=1, node_id=self.node, node_config={}, state=RecordDict(), run_config={})

    def answer(self, message: Message) -> Message:
        """Flower's reply to one message of its workflow. Errors: whatever Flower's code raises."""
        stage, trained = stage_of(message), 0.0

        def call_next(asked: Message, _: Context) -> Message:
            nonlocal trained
            begun = time.process_time()
            reply = Message(self._fitted(asked), reply_to=asked)
            trained = time.process_time() - begun
            return reply

        begun = time.process_time()
        reply = secaggplus_mod(message, self.context, call_next)
        self.seconds[stage] = time.process_time() - begun - trained
        self.sent[stage] = size_of(reply.content)
        return reply

    def _fitted(self, message: Message) -> RecordDict:
        parameters = compat.recorddict_to_fitins(message.content, keep_input=True).parameters
        trained = self.train(parameters_to_ndarrays(parameters)[0])
        status = Status(FlowerCode.OK, "")
        result = FitRes(status, ndarrays_to_parameters([trained]), self.examples, {"accuracy": 0.5})
        return compat.fitres_to_recorddict(result, keep_input=False)


@dataclass
class Relay:
    """What stands between Flower's workflow and the sites: the server's wire, or whoever holds it.

    lost     nodes that do not answer, by stage
    tamper   changes a message on its way to a site
    replies  all that came back, by stage
    errors   what the sites' code raised
    seconds  CPU seconds spent at the sites
    """

    sites: Mapping[int, FlowerSite]
    lost: Mapping[str, Collection[int]] = field(default_factory=dict)
    tamper: Tamper | None = None
    replies: dict[str, dict[int, RecordDict]] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    seconds: float = 0.0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The sites' replies; an error for each that failed, nothing from those that are lost."""
        begun = time.process_time()
        replies = [reply for message in messages if (reply := self._passed(message)) is not None]
        self.seconds += time.process_time() - begun
        return replies

    def _passed(self, message: Message) -> Message | None:
        stage, node = stage_of(message), message.metadata.dst_node_id
        if node in self.lost.get(stage, ()):
            return None
        message = _copied(message)
        if self.tamper:
            message = self.tamper(stage, message)
        try:
            reply = self.sites[node].answer(message)
        except Exception as error:  # as a SuperNode does: the server hears that there was one
            self.errors.append(error)
            return Message(Error(FAILED), reply_to=message)
        self.replies.setdefault(stage, {})[node] = reply.content
        return reply


@dataclass(frozen=True)
class FlowerOutcome:
    """What Flower's workflow made of a round.

    mean     the weighted mean it handed to its strategy; None if it stopped
    stopped  the stage in which it stopped, or None
    seconds  CPU seconds of the server, those of the sites excluded
    """

    mean: Vector | None
    stopped: str | None
    seconds: float


def play(relay: Relay, shares: int, threshold: int, **settings: float) -> FlowerOutcome:
    """One round of Flower's own workflow over the relay's sites, starting from parameters of zero.

    shares     k, sites that each site shares masks and key shares with, itself included
    threshold  t, shares that rebuild a secret
    settings   max_weight, clipping_range, … of `SecAggPlusWorkflow`
    Errors: whatever Flower's server code raises.
    """
    with at_work():
        workflow = SecAggPlusWorkflow(shares, threshold, **cast("dict[str, Any]", settings))
        context, state = _context(relay), WorkflowState()
        steps = (
            workflow.setup_stage,
            workflow.share_keys_stage,
            workflow.collect_masked_vectors_stage,
            workflow.unmask_stage,
        )
        begun = time.process_time()
        for stage, step in zip(STAGES, steps, strict=True):
            if not step(cast("Grid", relay), context, state):
                return FlowerOutcome(None, stage, time.process_time() - begun - relay.seconds)
        seconds = time.process_time() - begun - relay.seconds
        record = context.state.array_records[MAIN_PARAMS_RECORD]
        return FlowerOutcome(_vector(compat.arrayrecord_to_parameters(record, True)), None, seconds)


def stage_of(message: Message) -> str:
    """The stage that a message of the workflow belongs to."""
    return str(message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE])


def size_of(content: RecordDict) -> int:
    """Bytes of a message's content, as Flower writes it."""
    return int(recorddict_to_proto(content).ByteSize())


@dataclass(frozen=True)
class _Everybody:
    """The leanest strategy: every site trains, the workflow's mean is the result."""

    nodes: tuple[int, ...]

    def configure_fit(self, _round: int, parameters: Parameters, _clients: Any) -> list[tuple[Any, FitIns]]:
        return [(SimpleNamespace(node_id=node), FitIns(parameters, {})) for node in self.nodes]

    def aggregate_fit(self, _round: int, results: list[tuple[Any, FitRes]], _failures: Any) -> tuple[Parameters, Any]:
        return results[0][1].parameters, {}


def _copied(message: Message) -> Message:
    """As after a journey: a site that takes its settings out of a record takes nothing from the others."""
    records = message.content.items()
    content = {name: ConfigRecord(dict(each)) if isinstance(each, ConfigRecord) else each for name, each in records}
    about = message.metadata
    return Message(RecordDict(content), about.dst_node_id, about.message_type, group_id=about.group_id)


def _context(relay: Relay) -> LegacyContext:
    plain = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    context = LegacyContext(plain, strategy=cast("Strategy", _Everybody(tuple(relay.sites))))
    context.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    start = ndarrays_to_parameters([np.zeros(1, np.float32)])
    context.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(start, True)
    return context


def _vector(parameters: Parameters) -> Vector:
    return np.asarray(parameters_to_ndarrays(parameters)[0])


@contextmanager
def at_work() -> Iterator[None]:
    """As inside one of Flower's own tasks, but without its log."""
    logger = logging.getLogger("flwr")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1
    try:
        yield
    finally:
        logger.setLevel(level)
        TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = cast("int", None)

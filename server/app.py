"""The coordinator as a Flower ServerApp: it turns the run's settings and Flower's Grid into `coordinator.run`."""

from __future__ import annotations

import copy
import ctypes
import logging
import signal
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.superlink.grid import HttpGrid

from common.errors import Code, Refusal
from server.grid import GridSites

log = logging.getLogger(__name__)

RECORD = "frame"
MESSAGE_TYPE = "query.hushfed"
SMALL = 512 * 2**10  # bytes; a larger frame travels as an array, which Flower cuts into chunks
OUTAGE_SECONDS = 3.0  # how long one call insists; the loop around it looks at its own deadline
SUPERLINK = 1  # the sender of errors that the server made for a silent site

app = ServerApp()


class FlowerPost:
    """Frames as Flower messages. One content serves a whole broadcast, so the server stores it once."""

    def contents(self, frame: bytes) -> RecordDict:
        """`frame` as one value if small, else as one array of bytes."""
        if len(frame) <= SMALL:
            return RecordDict({RECORD: ConfigRecord({RECORD: frame})})
        return RecordDict({RECORD: ArrayRecord({RECORD: Array("uint8", (len(frame),), RECORD, frame)})})

    def message(self, contents: RecordDict, node: int, seconds: float) -> Message:
        """An order to `node` that nobody starts on after `seconds`."""
        return Message(contents, node, MESSAGE_TYPE, ttl=max(seconds, 1.0))  # Flower reads 0 as twelve hours

    def frame(self, reply: Message) -> bytes | None:
        """The frame in `reply`, or None for an error. Errors: Refusal MESSAGE_INVALID."""
        if reply.has_error():
            origin = "server" if reply.metadata.src_node_id == SUPERLINK else "site"
            log.warning("no answer, says the %s: %s (%d)", origin, reply.error.reason, reply.error.code)
            return None
        with suppress(KeyError, AttributeError, TypeError):
            value: Any = reply.content[RECORD][RECORD]
            frame = value.data if isinstance(value, Array) else value
            if isinstance(frame, bytes):
                return frame
        raise Refusal(Code.MESSAGE_INVALID, "Reply not read", "it carries no frame", "Update that site")


class PatientGrid:
    """Flower's Grid for rounds with a deadline: a call fails after OUTAGE_SECONDS, and a reply that is still
    being uploaded holds up no other.

    Flower's own calls insist for ever, and its pull waits a second at a time for the parts of one reply. This one
    has a connection of its own: Flower's log and sign of life keep theirs, which must insist.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = copy.copy(cast("HttpGrid", grid))
        self._grid._client = None
        self._grid._retry_invoker = make_simple_http_retry_invoker()
        self._grid._retry_invoker.max_time = OUTAGE_SECONDS
        self._arriving: dict[str, _Arriving] = {}

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Every node of the federation, with its key and whether it is online."""
        return self._grid.get_nodes()

    def push_messages(self, messages: list[Message]) -> Iterable[str]:
        """Send `messages`; ids in their order, "" for one that was not taken."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Collection[str]) -> list[Message]:
        """The replies to `message_ids` that are complete, each once. Replies nobody waits for are forgotten."""
        self._arriving = {asked: reply for asked, reply in self._arriving.items() if asked in message_ids}
        self._look_for([asked for asked in message_ids if asked not in self._arriving])
        whole = [asked for asked, reply in self._arriving.items() if self._is_whole(reply)]
        return [self._take(self._arriving.pop(asked)) for asked in whole]

    def _look_for(self, asked: list[str]) -> None:
        """Take note of new replies. One that is asked for again while it arrives would be called lost."""
        if not asked:
            return
        found = self._grid._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=asked))
        for head, tree in zip(found.messages_list, found.message_object_trees, strict=True):
            self._arriving[head.metadata.reply_to_message_id] = _Arriving(head.metadata.message_id, tree)

    def _is_whole(self, reply: _Arriving) -> bool:
        for part in reply.missing():
            request = PullObjectRequest(node=self._grid.node, run_id=self._grid.run.run_id, object_id=part)
            found = self._grid._runtime_client.PullObject(request)
            if not (found.object_found and found.object_available):
                return False
            reply.parts[part] = found.object_content
        return True

    def _take(self, reply: _Arriving) -> Message:
        self._grid._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._grid.node, run_id=self._grid.run.run_id, message_object_id=reply.number
            )
        )
        return cast("Message", inflate_object_from_contents(reply.number, dict(reply.parts)))


@dataclass(frozen=True)
class _Arriving:
    """A reply whose parts come one after the other; `parts` fills up."""

    number: str
    tree: ObjectTree
    parts: dict[str, bytes] = field(default_factory=dict, repr=False)

    def missing(self) -> list[str]:
        """Ids of the parts that are not here yet, children first."""
        return [part.object_id for part in iterate_object_tree(self.tree) if part.object_id not in self.parts]


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the coordinator. The run's settings are absolute paths, since Flower chooses the folder this runs in."""
    # Only here: Flower imports this module to find `app`, long before the learning libraries are needed.
    from server.coordinator import RunSettings, node_keys, run

    end_with_parent()
    settings = RunSettings(
        federation=_folder(context, "federation"),
        job=_folder(context, "job"),
        state=_folder(context, "state"),
        resume=bool(context.run_config.get("resume", False)),
        number=context.run_id,
    )
    run(GridSites(PatientGrid(grid), FlowerPost(), node_keys(settings)), settings)


def end_with_parent() -> None:
    """Ask Linux to kill this process when the executor that started it is gone.

    Flower's own watch takes up to 8 s, in which a coordinator that was started again would meet this one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def _folder(context: Context, name: str) -> Path:
    path = Path(str(context.run_config.get(name, "")))
    if not path.is_absolute():
        raise Refusal(Code.CONFIG_INVALID, f"Run not started: {name}", "it is no absolute path", "Give the whole path")
    return path

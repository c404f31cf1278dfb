"""The process of a site that has the network: Flower's Fleet API on one side, the agent's socket on the other."""

from __future__ import annotations

import argparse
import logging
import signal
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ObjectTree, PullObjectRequest, PushObjectRequest
from flwr.proto.message_pb2 import Message as StoredMessage
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import FlowerError
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from google.protobuf.message import DecodeError

from client.agent_channel import AgentChannel
from client.carrier import Carrier, Lost, NotAdmitted, Order, Pace, Unwanted
from common.errors import Code, Refusal
from common.lock import Purpose, hold
from common.status_file import Notice, read_status, write_refusal, write_status

RECORD = "frame"
SMALL = 512 * 2**10  # bytes; a larger frame travels as an array, which Flower cuts into chunks
HEARTBEAT = 10.0  # seconds, the least Flower allows: a dead site is known after two of them
CALL_SECONDS = 8.0  # a call that takes longer is tried again; shorter than the time until two beats are missed
ALONE = Purpose(by="client.link", what="Link not started", harm="a second one with its key would take its orders")
OBJECT_SECONDS = 30.0  # how long the server may take to receive what it announced


@dataclass(frozen=True)
class Parcel:
    """A reply ready to be sent, again if need be: its id never changes, so the server stores it once."""

    message: Message
    seconds: float


class FlowerFleet:
    """The server as `client.carrier.Fleet`: Flower's Fleet API over HTTPS, and nothing of its bundles."""

    def __init__(self, client: FleetHttpClient, public_key: bytes, memory: Path) -> None:
        """memory  folder that keeps the node's number and an order in hand over a kill."""
        self._client, self._public_key = client, public_key
        self._number, self._in_hand = memory / "node.json", memory / "order.bin"
        self._node = Node(node_id=int(read_status(self._number).get("node", 0)))

    def join(self) -> None:
        """Go on as the node that this site was, or be activated. A killed link is back at once that way."""
        with suppress(NotAdmitted):
            if self._node.node_id:
                return self.beat()
        with _translated(), _refused(httpx.codes.PRECONDITION_FAILED, httpx.codes.UNAUTHORIZED):
            request = ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=HEARTBEAT)
            self._node = Node(node_id=self._client.ActivateNode(request).node_id)
        write_status(self._number, {"node": self._node.node_id})
        return None

    def beat(self) -> None:
        with _translated(), _refused(httpx.codes.UNAUTHORIZED):
            request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT)
            if not self._client.SendNodeHeartbeat(request).success:
                raise NotAdmitted

    def next_order(self) -> Order | None:
        with _translated(), _refused(httpx.codes.UNAUTHORIZED):
            found = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not found.messages_list:
            return None
        self._in_hand.write_bytes(found.messages_list[0].SerializeToString())
        head = message_from_proto(found.messages_list[0])
        return Order(ticket=(head, found.message_object_trees[0]), seconds=head.metadata.ttl)

    def unanswered(self) -> Order | None:
        """Answered once or not at all: a server that lost its runs must not hold this link up."""
        try:
            head = message_from_proto(StoredMessage.FromString(self._in_hand.read_bytes()))
        except (OSError, ValueError, DecodeError):
            return None
        self._in_hand.unlink(missing_ok=True)
        return Order(ticket=(head, ObjectTree()), seconds=1.0)

    def fetch(self, order: Order) -> bytes:
        head, tree = order.ticket
        contents = {part.object_id: b"" for part in iterate_object_tree(tree)}
        with _translated(), _over():
            for part in contents:
                contents[part] = self._object(head.metadata.run_id, part)
        return _unpacked(tree.object_id, contents)

    def seal(self, order: Order, reply: bytes | Code) -> Parcel:
        head = order.ticket[0]
        content = Error(code=0, reason=reply.value) if isinstance(reply, Code) else pack(reply)
        message = Message(content, reply_to=head)
        message.metadata.__dict__["_message_id"] = message.object_id
        return Parcel(message, time.monotonic() - order.arrived)

    def deliver(self, parcel: Parcel) -> None:
        message, run = parcel.message, parcel.message.metadata.run_id
        with _translated(), _over():
            missing = self._client.PushMessages(
                PushMessagesRequest(
                    node=self._node,
                    messages_list=[message_to_proto(remove_content_from_message(message))],
                    message_object_trees=[get_object_tree(message)],
                    clientapp_runtime_list=[parcel.seconds],
                )
            )
            parts = get_all_nested_objects(message)
            for part in missing.objects_to_push:
                self._store(run, missing.session_id, part, parts[part].deflate())
            # Last, because the reply is waited for: the server may now delete the order.
            answered = message.metadata.reply_to_message_id
            self._client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(node=self._node, run_id=run, message_object_id=answered)
            )
        self._in_hand.unlink(missing_ok=True)

    def leave(self) -> None:
        with suppress(Lost, Unwanted, Refusal), _translated():
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))

    def _object(self, run: int, part: str) -> bytes:
        """One object. The server announces a message before its parts arrived, so a part may take a moment."""
        end = time.monotonic() + OBJECT_SECONDS
        while time.monotonic() < end:
            found = self._client.PullObject(PullObjectRequest(node=self._node, run_id=run, object_id=part))
            if not found.object_found:
                raise Unwanted
            if found.object_available:
                return bytes(found.object_content)
            time.sleep(0.03)
        raise Unwanted

    def _store(self, run: int, session: str, part: str, content: bytes) -> None:
        request = PushObjectRequest(
            node=self._node, run_id=run, object_id=part, object_content=content, session_id=session
        )
        if not self._client.PushObject(request).stored:
            raise Lost("an upload session expired")


def pack(frame: bytes) -> RecordDict:
    """A frame as Flower carries it: one value if small, else one array of bytes."""
    if len(frame) <= SMALL:
        return RecordDict({RECORD: ConfigRecord({RECORD: frame})})
    return RecordDict({RECORD: ArrayRecord({RECORD: Array("uint8", (len(frame),), RECORD, frame)})})


def unpack(content: RecordDict) -> bytes:
    """The frame in `content`. Errors: Refusal MESSAGE_INVALID."""
    with suppress(KeyError, AttributeError, TypeError):
        value: Any = content[RECORD][RECORD]
        frame = value.data if isinstance(value, Array) else value
        if isinstance(frame, bytes):
            return frame
    raise Refusal(
        Code.MESSAGE_INVALID, "Order not read", "it carries no frame", "Install the same release on both sides"
    )


def connect(address: str, ca: Path, key: Path) -> tuple[FleetHttpClient, bytes]:
    """A client of the Fleet API at `address` and the PEM of the key it signs with.

    Errors: Refusal FILE_MISSING, DATA_INVALID (no EC key in OpenSSH form, or no certificate).
    """
    try:
        private = load_ssh_private_key(key.read_bytes(), None)
        trust = ssl.create_default_context(cafile=str(ca))
    except FileNotFoundError as error:
        place = error.filename or ca
        raise Refusal(Code.FILE_MISSING, f"{place} not read", "it is not there", "Join the federation first") from None
    except (ValueError, ssl.SSLError):
        raise Refusal(Code.DATA_INVALID, "Keys not read", f"{key} or {ca} is damaged", "Join again") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise Refusal(Code.DATA_INVALID, f"{key} not read", "it is no EC key", "Make a new node key")
    trust.minimum_version = ssl.TLSVersion.TLSv1_3
    signing = NodeAuthHttpInterceptor(private, private.public_key())
    client = FleetHttpClient(
        f"https://{address}",
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperNode"), signing],
        verify=trust,
        timeout=CALL_SECONDS,
    )
    return client, public_key_to_bytes(private.public_key())


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m client.link`. Ends with 0 after SIGTERM, with 3 if a keeper must act."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT")
    for name in ("ca", "key", "agent", "state"):
        parser.add_argument(f"--{name}", required=True, type=Path)
    parser.add_argument("--poll", type=float, default=Pace.fast, help="seconds between polls while orders come")
    parser.add_argument("--patience", type=float, default=Pace.patience, help="seconds a refused key is tried")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    status = options.state / "link.json"
    try:
        with hold(options.state / "link.lock", ALONE):
            notice = Notice(status, joined=None, contact=None, error=None)
            client, public_key = connect(options.superlink, options.ca, options.key)
            fleet = FlowerFleet(client, public_key, options.state)
            pace = Pace(fast=options.poll, patience=options.patience)
            Carrier(fleet, AgentChannel(options.agent), pace, stopping, notice).run()
    except Refusal as refusal:
        logging.getLogger(__name__).error("%s %s", refusal.code.value, refusal)
        write_refusal(status, refusal)
        sys.exit(3)


def _unpacked(root: str, contents: dict[str, bytes]) -> bytes:
    try:
        message = inflate_object_from_contents(root, contents)
    except (ValueError, KeyError, TypeError):
        message = None
    if not isinstance(message, Message) or not message.has_content():
        raise Refusal(Code.MESSAGE_INVALID, "Order not read", "its parts do not fit", "Send it again")
    return unpack(message.content)


@contextmanager
def _translated() -> Iterator[None]:
    """Flower's and httpx's errors as Lost, or as a Refusal if the server shows a certificate we do not trust."""
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise Refusal(
                    Code.CERTIFICATE_INVALID,
                    "The server was not trusted",
                    cause.verify_message,
                    "Check the address and the ca.crt of your invitation; do not go around it",
                ) from None
            cause = cause.__cause__ or cause.__context__
        raise Lost(str(error) or type(error).__name__) from error


@contextmanager
def _refused(*statuses: int) -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code in statuses:
            raise NotAdmitted from error
        raise


@contextmanager
def _over() -> Iterator[None]:
    """An answer of Flower itself that the run is over; a proxy's 4xx is a loss like any other."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.is_client_error and FlowerError.from_json(error.response.text):
            raise Unwanted from error
        raise


if __name__ == "__main__":
    main()

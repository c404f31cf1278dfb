"""How link and agent of one site speak: bytes over gRPC on a Unix socket, never over a network."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import grpc

from common.errors import Code

SERVICE = "hushfed.Agent"
HANDLE = f"/{SERVICE}/Handle"
FRAME_LIMIT = 640 * 2**20  # bytes; above the limit of a message, so that the message's own check speaks first
OPTIONS = (("grpc.max_receive_message_length", FRAME_LIMIT), ("grpc.max_send_message_length", FRAME_LIMIT))
# An agent that comes back is found within half a second, not within gRPC's two minutes.
_RECONNECT = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


@dataclass(frozen=True)
class Failure:
    """The agent gave no answer. Only the code leaves the site."""

    code: Code


class Answer:
    """An order that the agent works on. `wait` may be called again and again."""

    def __init__(self, call: grpc.CallFuture[bytes]) -> None:
        self._call = call

    def wait(self, seconds: float) -> bytes | Failure | None:
        """The reply, why there is none, or None if `seconds` passed without either."""
        try:
            return bytes(self._call.result(timeout=seconds))
        except grpc.FutureTimeoutError:
            return None
        except (grpc.RpcError, grpc.FutureCancelledError):
            return Failure(_code(self._call))

    def abandon(self) -> None:
        """Stop waiting. The agent may finish its work; nobody reads it."""
        self._call.cancel()  # type: ignore[no-untyped-call]  # the stubs leave it out


class AgentChannel:
    """The link's end. It opens no file and knows no message: bytes in, bytes out."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.insecure_channel(f"unix:{socket.absolute()}", options=[*OPTIONS, *_RECONNECT])
        self._handle = self._channel.unary_unary(HANDLE, None, None)

    def ask(self, frame: bytes, seconds: float) -> Answer:
        """Give the agent an order that is worth `seconds`. An agent that is down fails at once."""
        return Answer(self._handle.future(frame, timeout=seconds))

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(ValueError):  # closed twice
            self._channel.close()


def _code(call: grpc.CallFuture[bytes]) -> Code:
    """The code that the agent named; a call that was cut, by a kill for one, is an agent that is not there."""
    if call.cancelled():
        return Code.AGENT_UNAVAILABLE
    if call.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.FAILED_PRECONDITION):
        named = call.details()
        return Code(named) if named in Code.__members__ else Code.MESSAGE_TOO_LARGE
    return Code.AGENT_UNAVAILABLE

"""The sites of a federation as the coordinator meets them, over Flower's Grid: frames out, frames back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from common.errors import Code, Refusal

T = TypeVar("T")
log = logging.getLogger(__name__)

POLL_SECONDS = 0.1  # between two looks for replies
ONLINE = "online"


class Grid(Protocol):
    """What is used of Flower's Grid."""

    def get_nodes(self) -> Iterable[Any]: ...
    def push_messages(self, messages: Any) -> Iterable[str]: ...
    def pull_messages(self, message_ids: Any) -> Iterable[Any]: ...


class Post(Protocol):
    """How a frame becomes a message of the Grid and back."""

    def contents(self, frame: bytes) -> Any: ...
    def message(self, contents: Any, node: int, seconds: float) -> Any: ...
    def frame(self, reply: Any) -> bytes | None: ...  # None: the site sent a code instead; it is logged


class GridSites:
    """`Sites` over a Grid. Sites are known by their node key, never by the number Flower gave them.

    keys  public node key (PEM or OpenSSH text) of each site id of the manifest
    Errors: Refusal CONFIG_INVALID if two sites have one key.
    """

    def __init__(self, grid: Grid, post: Post, keys: Mapping[int, str | bytes]) -> None:
        self._grid, self._post = grid, post
        self._site_of_key = {canonical_key(key): site for site, key in keys.items()}
        if len(self._site_of_key) != len(keys):
            raise Refusal(Code.CONFIG_INVALID, "Sites not told apart", "two have one node key", "Make a key for each")
        self._nodes: dict[int, int] = {}

    def present(self) -> frozenset[int]:
        """Site ids of the manifest that are online now; a site that fell silent counts for up to 20 s more."""
        self._look()
        return frozenset(self._nodes)

    def ask(
        self, frames: bytes | Mapping[int, bytes], to: Collection[int], deadline_seconds: float
    ) -> Iterator[tuple[int, bytes | None]]:
        """Send an order to the sites `to` and yield each reply when it comes.

        frames  the same bytes for all, stored once, or bytes for each site
        Yields every site of `to` once: (site, reply), or (site, None) if it is away, answered with an error, or
        was silent until the deadline. Ends at the deadline at the latest. A reply after that, or a second one,
        is never looked at.
        """
        end = time.monotonic() + deadline_seconds
        waiting = self._send(frames, to, deadline_seconds)
        reached = set(waiting.values())
        yield from ((site, None) for site in to if site not in reached)
        while waiting and time.monotonic() < end:
            for reply in self._replies(waiting):
                if (site := waiting.pop(reply.metadata.reply_to_message_id, None)) is not None:
                    yield site, self._frame(site, reply)
            if waiting:
                time.sleep(min(POLL_SECONDS, max(0.0, end - time.monotonic())))
        yield from ((site, None) for site in waiting.values())

    def _send(self, frames: bytes | Mapping[int, bytes], to: Collection[int], seconds: float) -> dict[str, int]:
        """The site of each message that was taken."""
        if any(site not in self._nodes for site in to):
            self._look()
        sites = [site for site in to if site in self._nodes]
        if isinstance(frames, Mapping):
            made = {id(frame): self._post.contents(frame) for frame in {id(f): f for f in frames.values()}.values()}
            contents = {site: made[id(frames[site])] for site in sites}
        else:
            contents = dict.fromkeys(sites, self._post.contents(frames))
        messages = [self._post.message(contents[site], self._nodes[site], seconds) for site in sites]
        taken = self._survive(lambda: list(self._grid.push_messages(messages)) if messages else [], "orders not sent")
        return {number: site for number, site in zip(taken, sites, strict=False) if number}

    def _replies(self, waiting: Mapping[str, int]) -> list[Any]:
        return self._survive(lambda: list(self._grid.pull_messages(list(waiting))), "replies not fetched")

    def _frame(self, site: int, reply: Any) -> bytes | None:
        try:
            return self._post.frame(reply)
        except Refusal as refusal:
            log.warning("site %d: %s", site, refusal)
            return None

    def _look(self) -> None:
        nodes = self._survive(lambda: list(self._grid.get_nodes()), "nodes not listed")
        online = {canonical_key(node.public_key): node.node_id for node in nodes if node.status == ONLINE}
        self._nodes = {site: online[key] for key, site in self._site_of_key.items() if key in online}

    def _survive(self, step: Callable[[], list[T]], what: str) -> list[T]:
        """`step`, or nothing if the server failed: the round's deadline and quorum decide what that means."""
        try:
            return step()
        except Exception as error:  # whatever the transport raises; a stopped run is none of these
            log.warning("%s: %s: %s", what, type(error).__name__, error)
            return []


def canonical_key(key: str | bytes) -> bytes:
    """The DER of a public key given as PEM or OpenSSH text. Errors: Refusal CONFIG_INVALID."""
    text = key.encode() if isinstance(key, str) else bytes(key)
    try:
        if text.lstrip().startswith(b"-----"):
            public: Any = serialization.load_pem_public_key(text)
        else:
            public = serialization.load_ssh_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise Refusal(
            Code.CONFIG_INVALID, "A node key was not read", "it is neither PEM nor OpenSSH text", "Check the manifest"
        ) from None
    der: bytes = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return der

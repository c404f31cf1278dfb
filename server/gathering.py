"""Questions to sites and what comes back: sealed orders out, verified replies in, until a deadline."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from common.errors import Code, Refusal
from common.identity import Signer
from common.messages import COORDINATOR, AnyOrder, AnyReply, Refused, open_reply, seal, sealed_digest
from common.secagg.manifest import Manifest
from server.clock import SYSTEM, Clock


class Sites(Protocol):
    """The sites of a federation as the coordinator reaches them: over Flower, or in one process."""

    def present(self) -> frozenset[int]:
        """Ids of the sites that are connected now."""

    def ask(
        self, frames: bytes | Mapping[int, bytes], to: Collection[int], deadline_seconds: float
    ) -> Iterator[tuple[int, bytes | None]]:
        """Send to every site of `to` the same frame, or its own; yield each answer as it arrives.

        None stands for a site that cannot be reached. Ends when all have answered, or at the deadline, which is held
        against the clock of these sites: the system's own, or that of a simulated world.
        """


@dataclass(frozen=True)
class Answer:
    """What one site said: its reply, or the code with which it refused. `size`: bytes of order and reply together."""

    site: int
    reply: AnyReply | None
    code: Code | None
    size: int = 0


@dataclass(frozen=True)
class Questions:
    """How this coordinator asks: the sites, their keys, the key that signs the orders, and the clock it waits by."""

    sites: Sites
    manifest: Manifest
    signer: Signer
    clock: Clock = SYSTEM

    def ask(self, orders: AnyOrder | Mapping[int, AnyOrder], to: Collection[int], seconds: float) -> Iterator[Answer]:
        """One answer for every site of `to`, in order of arrival; the silent ones last, as SITE_UNREACHABLE.

        A caller that has enough may stop iterating. A reply that is forged, stale or malformed counts as a
        refusal of its site, never as a failure of the round.
        """
        frames: bytes | dict[int, bytes]
        if isinstance(orders, Mapping):
            sealed = {id(order): seal(COORDINATOR, order, self.signer) for order in orders.values()}
            named = {order: sealed_digest(frame) for order, frame in sealed.items()}
            frames = {site: sealed[id(order)] for site, order in orders.items()}
            digests = {site: named[id(order)] for site, order in orders.items()}
        else:
            frames = seal(COORDINATOR, orders, self.signer)
            digests = dict.fromkeys(to, sealed_digest(frames))
        silent = set(to)
        for site, data in self.sites.ask(frames, to, seconds):
            if site in silent:
                silent.discard(site)
                sent = len(frames[site] if isinstance(frames, dict) else frames)
                yield self._read(site, data, digests[site], sent)
        for site in sorted(silent):
            yield Answer(site, None, Code.SITE_UNREACHABLE)

    def _read(self, site: int, data: bytes | None, digest: bytes, sent: int) -> Answer:
        if data is None:
            return Answer(site, None, Code.SITE_UNREACHABLE, sent)
        size = sent + len(data)
        try:
            reply = open_reply(data, site, self.manifest.site(site).identity, digest)
        except Refusal as refusal:
            return Answer(site, None, refusal.code, size)
        if isinstance(reply, Refused):
            return Answer(site, None, _known(reply.code), size)
        return Answer(site, reply, None, size)


def _known(code: str) -> Code:
    return Code(code) if code in Code.__members__ else Code.INTERNAL

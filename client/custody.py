"""What a site's key store promises secure aggregation: what is never forgotten, and what is forgotten in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from common.identity import Signer
from common.secagg.keys import RoundSeed
from common.secagg.wire import MaskTotal, Parcel


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an act of this site belongs.

    sid, record, job  the session: its name, h_R, and the digest of its job
    number            of the aggregation; at enrolment the session's first
    attempt           first number of the attempt: what belongs to smaller ones is over, and erased
    binding           what the aggregation is over; nothing at enrolment
    """

    sid: bytes
    record: bytes
    job: bytes
    number: int
    attempt: int
    binding: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The one set of reports whose masks this site summed for a number. The total is kept until a later answer."""

    set_digest: bytes
    members: frozenset[int]
    total: MaskTotal | None = field(repr=False)


class KeyStore(Protocol):
    """What a site must not forget, and what it must forget in time. Every change is on disk before the call returns."""

    @property
    def identity(self) -> Signer:
        """The key that signs what this site says."""

    def pinned(self, sid: bytes) -> bytes | None:
        """h_R that this sid was first seen with."""

    def seeds(self, sid: bytes) -> Mapping[int, RoundSeed]:
        """Round seeds of the session that are not erased, by number."""

    def seed(self, sid: bytes, number: int) -> RoundSeed | None:
        """The seed of one number, unless it is erased."""

    @property
    def shares(self) -> ShareStore:
        """What it keeps for other unmasking sites."""

    def enrol(self, place: Place, seeds: Mapping[int, RoundSeed], box: RoundSeed | None = None) -> None:
        """Pin the session and keep its secrets; erase those of the job's earlier ones. Refuses a sid that has any.

        box  behind the key that others seal shares with for this site
        """

    def last_reported(self, sid: bytes) -> int | None:
        """Largest number of the session that this site masked a report for."""

    def reported(self, sid: bytes, number: int) -> bytes | None:
        """What this site's report of the number was bound to."""

    def reported_under(self, binding: bytes) -> bool:
        """Whether this site masked a report that was bound to this, in any session."""

    def report(self, place: Place) -> None:
        """Pin the session, use up attempt and binding, erase what is of earlier attempts.

        Refuses an attempt not above the last, and a binding used before.
        """

    def answered(self, sid: bytes, number: int) -> Answer | None:
        """The answer given for the number."""

    def bound(self, binding: bytes) -> tuple[bytes, int] | None:
        """Session and number of the answer over this binding."""

    def last_members(self, place: Place, count: int) -> tuple[frozenset[int], ...]:
        """Members of the sets answered in this attempt, and of the `count` before it for its job, in any session."""

    def answer(self, place: Place, answer: Answer) -> None:
        """Keep the answer; erase the number's seed and what is of earlier attempts. Refuses a second answer."""

    def forget_job(self, job: bytes) -> None:
        """Erase all secrets of a job's sessions: its run is over."""

    def forget_old(self, now: float) -> None:
        """Erase the secrets of sessions that are over a week old at `now` (seconds), whatever became of them."""

    def forget(self, sid: bytes) -> None:
        """Erase all secrets of a session that is over: none of its open numbers will be answered any more."""


@dataclass(frozen=True, kw_only=True)
class Dealt:
    """The shares that this site made of its seeds, sealed for others, and the digest of the keys they are sealed with.

    Not even this site can open them.
    """

    boxes: bytes
    parcels: tuple[Parcel, ...] = field(repr=False)


class ShareStore(Protocol):
    """Shares of one session after the other: dealt once, kept for others, released for one set of lost sites a number.

    Shares of a number are erased with the first report or answer under a larger one, and with the session.
    """

    def box(self, sid: bytes) -> RoundSeed | None:
        """Behind the key that others seal shares with, until the shares are kept."""

    def dealt(self, sid: bytes) -> Dealt | None:
        """What this site dealt in the session."""

    def deal(self, place: Place, dealt: Dealt) -> None:
        """Keep what leaves. Refuses a second deal."""

    def kept(self, sid: bytes) -> bytes | None:
        """Digest of the parcels whose shares are kept."""

    def keep(self, place: Place, digest: bytes, shares: Mapping[int, tuple[bytes, ...]]) -> None:
        """Keep shares of all numbers from `place.number` on, by dealer; erase the box. Refuses a second time."""

    def share(self, sid: bytes, number: int, dealer: int) -> bytes | None:
        """The share of a dealer's seed of one number, unless it is erased."""

    def released(self, sid: bytes, number: int) -> tuple[int, ...] | None:
        """The lost sites whose shares of the number were released."""

    def release(self, place: Place, lost: tuple[int, ...]) -> None:
        """Remember for whom shares of the number are released. Refuses other sites than before."""

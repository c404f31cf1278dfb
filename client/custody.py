"""What a site's key store promises secure aggregation: what is never forgotten, and what is forgotten in time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from common.identity import Signer
from common.secagg.keys import RoundSeed
from common.secagg.wire import MaskTotal


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an act of this site belongs.

    sid, record, job  the session: its name, h_R, and the digest of its job
    number            of the aggregation; at enrolment the session's first
    binding           what the aggregation is over; nothing at enrolment
    """

    sid: bytes
    record: bytes
    job: bytes
    number: int
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

    def enrol(self, place: Place, seeds: Mapping[int, RoundSeed]) -> None:
        """Pin the session and keep its seeds; erase those of the job's earlier sessions. Refuses a sid that has any."""

    def last_reported(self, sid: bytes) -> int | None:
        """Largest number of the session that this site masked a report for."""

    def reported(self, sid: bytes, number: int) -> bytes | None:
        """What this site's report of the number was bound to."""

    def report(self, place: Place) -> None:
        """Pin the session, use up the number, erase seeds of smaller ones. Refuses a number not above the last."""

    def answered(self, sid: bytes, number: int) -> Answer | None:
        """The answer given for the number."""

    def bound(self, binding: bytes) -> tuple[bytes, int] | None:
        """Session and number of the answer over this binding."""

    def last_members(self, job: bytes) -> frozenset[int] | None:
        """Members of the set answered last for this job, in any session."""

    def answer(self, place: Place, answer: Answer) -> None:
        """Keep the answer; erase the number's seed and all smaller ones. Refuses a second answer."""

    def forget(self, sid: bytes) -> None:
        """Erase all seeds of a session that is over: none of its open numbers will be answered any more."""

"""A site's part in attempts by pairwise masks: which stage it is in, and what its key store must not forget of it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from client.custody import Answer, KeyStore, Place
from client.pairwise import Advertised, Agreed, Dealt, Masked
from common.errors import Code, Refusal
from common.frames import pack
from common.secagg.codec import Encoded
from common.secagg.pairwise.attempt import Attempt, set_digest
from common.secagg.pairwise.wire import Endorsement, PairKeys, PairParcel, RevealedShare

S = TypeVar("S", Advertised, Dealt, Masked, Agreed)


class Pairing:
    """One attempt at a time, stage by stage, each once. A newer attempt ends an older one and its secrets.

    On disk before anything leaves: that a number was used, and which set was opened for it. The rest is in memory:
    after a restart every stage of an attempt under way is refused with E_ROUND, as if this site were lost.
    """

    def __init__(self, store: KeyStore):
        self._store = store
        self._stage: Advertised | Dealt | Masked | Agreed | None = None
        self._attempt: Attempt | None = None

    def refuse_used(self, attempt: Attempt) -> None:
        """Refuse a number that cannot be used any more. Errors: Refusal E_ROUND, E_POLICY (another record), E_MODEL."""
        place = place_of(attempt)
        if self._store.pinned(place.sid) not in (None, place.record):
            raise Refusal(Code.E_POLICY, "Attempt refused", "its session has another record", "Open another session")
        last = self._store.last_reported(place.sid)
        if last is not None and attempt.number <= last:
            raise Refusal(Code.E_ROUND, "Attempt refused", f"number {last} was used", "Take a larger number")
        if self._store.reported_under(place.binding):
            why = "this site has reported under its binding before"
            raise Refusal(Code.E_MODEL, "Attempt refused", why, "Bind it to its round")

    def advertise(self, attempt: Attempt, encoded: Encoded) -> PairKeys:
        """New keys for one attempt; its number is used up before they leave.

        Errors: Refusal as `refuse_used` and `Advertised.open`.
        """
        self.refuse_used(attempt)
        stage = Advertised.open(self._store.identity, attempt, encoded)
        self._store.report(place_of(attempt))
        self._stage, self._attempt = stage, attempt
        return stage.keys

    def deal(self, sid: bytes, number: int, peers: Sequence[PairKeys]) -> tuple[PairParcel, ...]:
        """Shares for peers. Errors: Refusal E_ROUND (not this stage), and as `Advertised.deal`."""
        dealt = self._at(Advertised, sid, number).deal(peers)
        self._stage = dealt
        return dealt.parcels

    def mask(self, sid: bytes, number: int, dealt: Sequence[int], parcels: Sequence[PairParcel]) -> bytes:
        """The masked vector. Errors: Refusal E_ROUND (not this stage), and as `Dealt.mask`."""
        masked = self._at(Dealt, sid, number).mask(dealt, parcels)
        self._stage = masked
        return masked.body

    def agree(self, sid: bytes, number: int, survivors: Sequence[int]) -> bytes:
        """The signature over the set of survivors.

        Errors: Refusal E_ROUND (not this stage), E_SET (too near the set opened last for this job), and as
        `Masked.agree`.
        """
        stage = self._at(Masked, sid, number)
        self._refuse_overlap(stage.attempt, survivors)
        agreed = stage.agree(self._store.identity, survivors)
        self._stage = agreed
        return agreed.signature

    def reveal(self, sid: bytes, number: int, endorsements: Sequence[Endorsement]) -> tuple[RevealedShare, ...]:
        """Shares of peers' secrets, the last thing of an attempt.

        Errors: Refusal E_ROUND (not this stage), E_SET, and as `Agreed.reveal`.
        """
        agreed = self._at(Agreed, sid, number)
        shares = agreed.reveal(endorsements)
        attempt = agreed.before.attempt
        answer = Answer(
            set_digest=set_digest(attempt, agreed.survivors), members=frozenset(agreed.survivors), total=None
        )
        self._store.answer(place_of(attempt), answer)
        self._stage = self._attempt = None
        return shares

    def _at(self, kind: type[S], sid: bytes, number: int) -> S:
        """The stage in force, if it is of this kind and attempt. Errors: Refusal E_ROUND."""
        attempt = self._attempt
        here = attempt is not None and (attempt.session.sid, attempt.number) == (sid, number)
        if not here or not isinstance(self._stage, kind):
            why = "this site is not in that stage of that attempt"
            raise Refusal(Code.E_ROUND, "Stage refused", why, "Repeat the round under another number")
        return self._stage

    def _refuse_overlap(self, attempt: Attempt, survivors: Sequence[int]) -> None:
        """Two sets that differ in one site would give that site away by subtraction."""
        for last in self._store.last_members(place_of(attempt), 1):
            if 0 < (differ := len(last ^ set(survivors))) < attempt.manifest.rules.overlap_min:
                why = f"it differs from the last one in {differ} sites only"
                raise Refusal(Code.E_SET, "Set refused", why, "Repeat the round with another set")


def place_of(attempt: Attempt) -> Place:
    """Where an act in this attempt belongs."""
    session = attempt.session
    record = hashlib.sha256(pack(session)).digest()
    number = attempt.number
    return Place(
        sid=session.sid, record=record, job=session.job, number=number, attempt=number, binding=attempt.binding
    )

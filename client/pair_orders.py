"""Orders of an attempt by pairwise masks at a site: each answered once, and the newest again if it is repeated."""

from __future__ import annotations

from typing import assert_never

from client.custody import KeyStore
from client.labour import Labour
from client.pairing import Pairing
from common.errors import Code, Refusal
from common.messages import AnyReply, StageOrder
from common.parameters import Flat
from common.secagg.manifest import Manifest
from common.secagg.pairwise.attempt import Attempt
from common.secagg.pairwise.orders import (
    Advertised,
    AdvertiseOrder,
    Agreed,
    AgreeOrder,
    Masked,
    MaskOrder,
    PairDealOrder,
    PairDealt,
    Revealed,
    RevealOrder,
)
from common.work import Work


class PairOrders:
    """What a session hands over under protocol "bonawitz". It remembers its newest answer, for a repeated order."""

    def __init__(self, manifest: Manifest, store: KeyStore, labour: Labour):
        self._manifest, self._labour = manifest, labour
        self._pairing = Pairing(store)
        self._newest: tuple[bytes, AnyReply] | None = None

    def advertise(self, order: AdvertiseOrder, work: Work, digest: bytes) -> AnyReply:
        """Work as for any report, then the keys of an attempt; the vector waits for its masks.

        Errors: Refusal of every kind.
        """
        if (repeated := self._repeated(digest)) is not None:
            return repeated
        _refuse_stranger(order, work)
        parameters = self._labour.parameters(order, work)
        attempt = attempt_of(self._manifest, order, work, parameters)
        self._pairing.refuse_used(attempt)
        yielded = self._labour.contribution(order, work, digest, parameters)
        keys = self._pairing.advertise(attempt, yielded.encoded)
        return self._kept(digest, Advertised(order=digest, keys=keys, epsilon=yielded.epsilon, head=yielded.head))

    def answer(self, order: StageOrder, work: Work, digest: bytes) -> AnyReply:
        """The later stages. Errors: Refusal E_ROUND (out of turn), and as `Pairing`."""
        return self._repeated(digest) or self._kept(digest, self._answer(order, digest))

    def _answer(self, order: StageOrder, digest: bytes) -> AnyReply:
        pairing, place = self._pairing, (order.sid, order.number)
        match order:
            case PairDealOrder():
                return PairDealt(order=digest, parcels=pairing.deal(*place, order.peers))
            case MaskOrder():
                return Masked(order=digest, body=pairing.mask(*place, order.dealt, order.parcels))
            case AgreeOrder():
                return Agreed(order=digest, signature=pairing.agree(*place, order.survivors))
            case RevealOrder():
                return Revealed(order=digest, shares=pairing.reveal(*place, order.endorsements))
            case _:
                assert_never(order)

    def _repeated(self, digest: bytes) -> AnyReply | None:
        newest = self._newest
        return newest[1] if newest is not None and newest[0] == digest else None

    def _kept(self, digest: bytes, reply: AnyReply) -> AnyReply:
        self._newest = (digest, reply)
        return reply


def attempt_of(manifest: Manifest, order: AdvertiseOrder, work: Work, parameters: Flat) -> Attempt:
    """The attempt of an order, bound to the model that this site was shown. Errors: Refusal as `Attempt`."""
    return Attempt(
        manifest=manifest,
        session=order.session,
        number=order.number,
        cohort=order.cohort,
        binding=work.binding(order, parameters),
        ring=work.codec(order.task).ring,
        quorum=max(work.job.aggregation.quorum, manifest.rules.quorum_min),
    )


def _refuse_stranger(order: AdvertiseOrder, work: Work) -> None:
    """Refuse a session of another job, and a job of another protocol or with groups. Errors: Refusal E_POLICY."""
    asked = work.job.aggregation
    if order.session.job != work.job.digest() or asked.protocol != "bonawitz" or asked.groups != 1:
        why = "its session is of another job or protocol, or the job has groups, which this protocol does not know"
        raise Refusal(Code.E_POLICY, "Attempt refused", why, "Open a session for this job")

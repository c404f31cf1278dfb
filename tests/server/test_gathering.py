"""Questions: whatever a site sends counts for that site only, and the round goes on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code
from common.identity import Signer
from common.messages import (
    Accepted,
    AnyOrder,
    LedgerOrder,
    OfferOrder,
    Refused,
    open_order,
    seal,
    sealed_digest,
)
from server.gathering import Answer, Questions
from tests.secagg_federation import manifest_of, signer

MANIFEST = manifest_of(3)
OFFER = OfferOrder(run=bytes(16), job=b"{}")


class Scripted:
    """Sites whose answers a test writes: by site, from the frame it got; a site that is left out stays silent."""

    def __init__(self, answers: Mapping[int, object], extra: tuple[tuple[int, bytes | None], ...] = ()):
        self.answers, self.extra, self.asked = answers, extra, dict[int, bytes]()

    def present(self) -> frozenset[int]:
        return frozenset(MANIFEST.ids)

    def ask(
        self, frames: bytes | Mapping[int, bytes], to: Collection[int], deadline_seconds: float
    ) -> Iterator[tuple[int, bytes | None]]:
        for site in to:
            frame = frames[site] if isinstance(frames, Mapping) else frames
            self.asked[site] = frame
            if site in self.answers:
                answer = self.answers[site]
                yield site, answer(site, frame) if callable(answer) else answer  # type: ignore[misc]
        yield from self.extra


def accepted(site: int, frame: bytes, by: Signer | None = None, order: bytes | None = None) -> bytes:
    reply = Accepted(order=order or sealed_digest(frame), epsilon_spent=0.0, epsilon_limit=1.0, head=bytes(32))
    return seal(site, reply, by or signer(site))


def asked(sites: Scripted, orders: AnyOrder | Mapping[int, AnyOrder] = OFFER) -> list[Answer]:
    return list(Questions(sites, MANIFEST, signer("coordinator")).ask(orders, MANIFEST.ids, 1.0))


def test_all_sites_get_the_same_signed_bytes_and_each_answer_is_given_once() -> None:
    sites = Scripted(dict.fromkeys(MANIFEST.ids, accepted))
    answers = asked(sites)
    assert [answer.site for answer in answers] == [1, 2, 3]
    assert all(isinstance(answer.reply, Accepted) and answer.code is None for answer in answers)
    assert len(set(sites.asked.values())) == 1
    order, _ = open_order(sites.asked[1], MANIFEST.coordinator)
    assert order == OFFER
    assert answers[0].size == len(sites.asked[1]) + len(accepted(1, sites.asked[1]))


def test_each_site_may_get_its_own_order_and_must_answer_that_one() -> None:
    orders = {site: LedgerOrder(run=bytes([site]) * 16, job=b"{}") for site in MANIFEST.ids}
    sites = Scripted({1: accepted, 2: accepted, 3: lambda site, frame: accepted(site, sites.asked[1])})
    answers = {answer.site: answer for answer in asked(sites, orders)}
    assert len(set(sites.asked.values())) == 3
    assert answers[2].code is None
    assert answers[3].code is Code.MESSAGE_INVALID


def test_a_refusal_counts_with_its_code_and_an_unknown_code_as_internal() -> None:
    def refusing(code: str) -> object:
        return lambda site, frame: seal(
            site, Refused(order=sealed_digest(frame), code=code, reference="0f"), signer(site)
        )

    answers = asked(Scripted({1: refusing("BUDGET_EXHAUSTED"), 2: refusing("SOMETHING_NEW"), 3: accepted}))
    assert [answer.code for answer in answers] == [Code.BUDGET_EXHAUSTED, Code.INTERNAL, None]
    assert answers[0].reply is None


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (lambda site, frame: accepted(site, frame, by=signer("stranger")), Code.E_SIG),
        (lambda site, frame: accepted(1, frame, by=signer(1)), Code.SENDER_UNKNOWN),
        (lambda site, frame: accepted(site, frame, order=bytes(32)), Code.MESSAGE_INVALID),
        (lambda site, frame: frame, Code.SENDER_UNKNOWN),
        (b"", Code.MESSAGE_INVALID),
        (None, Code.SITE_UNREACHABLE),
    ],
    ids=["forged", "of another site", "to another order", "the order itself", "empty", "unreachable"],
)
def test_a_bad_reply_counts_for_its_site_only(bad: object, code: Code) -> None:
    answers = {answer.site: answer for answer in asked(Scripted({1: accepted, 2: bad, 3: accepted}))}
    assert answers[2].code is code
    assert answers[2].reply is None
    assert answers[1].code is answers[3].code is None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_bad_reply_and_no_error(data: bytes) -> None:
    answers = asked(Scripted({1: data, 2: b"HF\x01" + data, 3: accepted}))
    assert [answer.reply is None for answer in answers] == [True, True, False]


def test_the_silent_come_last_as_unreachable() -> None:
    assert [(answer.site, answer.code) for answer in asked(Scripted({3: accepted}))] == [
        (3, None),
        (1, Code.SITE_UNREACHABLE),
        (2, Code.SITE_UNREACHABLE),
    ]


def test_a_second_answer_and_one_of_a_site_that_was_not_asked_are_ignored() -> None:
    sites = Scripted({1: accepted, 2: accepted, 3: accepted}, extra=((1, b"again"), (9, b"stranger")))
    answers = asked(sites)
    assert [answer.site for answer in answers] == [1, 2, 3]
    assert all(answer.code is None for answer in answers)


def test_who_has_enough_may_stop_listening() -> None:
    sites = Scripted(dict.fromkeys(MANIFEST.ids, accepted))
    first = next(Questions(sites, MANIFEST, signer("coordinator")).ask(OFFER, MANIFEST.ids, 1.0))
    assert first.site == 1
    assert set(sites.asked) == {1}

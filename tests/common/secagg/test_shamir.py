"""Shares of a secret: a threshold of them rebuilds it, fewer tell nothing, a false one is found."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.secagg.shamir import PRIME, SHARE_BYTES, commitment, from_coefficients, join, share

SECRETS = st.binary(min_size=32, max_size=32)


def refused():
    return pytest.raises(Refusal, check=lambda error: error.code is Code.E_SHARE)


@st.composite
def shapes(draw):
    holders = draw(st.integers(2, 16))
    return draw(st.integers(2, holders)), holders


def picked(shares: tuple[bytes, ...], holders) -> dict[int, bytes]:
    return {x: shares[x - 1] for x in holders}


@given(SECRETS, shapes(), st.data())
def test_any_threshold_of_shares_or_more_rebuild_the_secret(secret, shape, data):
    threshold, holders = shape
    shares = share(secret, threshold, holders)
    chosen = data.draw(st.sets(st.integers(1, holders), min_size=threshold))
    assert join(picked(shares, chosen)) == secret


@given(SECRETS, SECRETS, shapes(), st.data())
def test_one_share_fewer_fits_every_secret_equally_well(secret, other, shape, data):
    """Must not: rule out any secret. For every other one there is exactly one polynomial through the same shares."""
    threshold, holders = shape
    shares = share(secret, threshold, holders)
    chosen = data.draw(st.sets(st.integers(1, holders), min_size=threshold - 1, max_size=threshold - 1))
    missing = next(x for x in range(1, holders + 2) if x not in chosen)
    known = {0: int.from_bytes(other, "big")} | {x: int.from_bytes(shares[x - 1], "big") for x in chosen}
    completed = picked(shares, chosen) | {missing: value_at(missing, known).to_bytes(SHARE_BYTES, "big")}
    assert join(completed) == other


def value_at(x: int, known: dict[int, int]) -> int:
    """The polynomial through the known points, at x."""
    total = 0
    for point, value in known.items():
        for other in known.keys() - {point}:
            value = value * (x - other) * pow(point - other, -1, PRIME) % PRIME
        total += value
    return total % PRIME


@given(SECRETS, shapes())
def test_one_share_fewer_does_not_rebuild_the_secret(secret, shape):
    threshold, holders = shape
    shares = share(secret, threshold, holders)
    try:
        assert join(picked(shares, range(1, threshold))) != secret
    except Refusal as refusal:  # a value that is no secret, or no share at all
        assert refusal.code is Code.E_SHARE  # noqa: PT017


@given(SECRETS, shapes(), st.data())
def test_one_false_share_spoils_the_secret_and_is_found_by_its_commitment(secret, shape, data):
    threshold, holders = shape
    shares = share(secret, threshold, holders)
    published = {x: commitment(b"place", each) for x, each in enumerate(shares, 1)}
    liar = data.draw(st.integers(1, threshold))
    given_shares = picked(shares, range(1, threshold + 1))
    false = (int.from_bytes(given_shares[liar], "big") + data.draw(st.integers(1, PRIME - 1))) % PRIME
    given_shares[liar] = false.to_bytes(SHARE_BYTES, "big")
    assert [x for x, each in given_shares.items() if commitment(b"place", each) != published[x]] == [liar]
    try:
        assert join(given_shares) != secret
    except Refusal as refusal:
        assert refusal.code is Code.E_SHARE  # noqa: PT017


def test_every_choice_of_holders_gives_the_same_secret():
    secret = bytes(range(32))
    shares = share(secret, 3, 6)
    assert {join(picked(shares, chosen)) for chosen in itertools.combinations(range(1, 7), 3)} == {secret}


def test_the_largest_and_the_smallest_secret_and_coefficient_survive():
    for secret in (bytes(32), b"\xff" * 32):
        for coefficient in (0, PRIME - 1):
            shares = from_coefficients(secret, [coefficient] * 4, 7)
            assert all(len(each) == SHARE_BYTES for each in shares)
            assert join(picked(shares, range(3, 8))) == secret


def test_two_shares_of_one_secret_never_repeat():
    secret = bytes(32)
    assert not set(share(secret, 2, 5)) & set(share(secret, 2, 5))


@pytest.mark.parametrize(
    ("secret", "threshold", "holders"), [(bytes(31), 2, 3), (bytes(33), 2, 3), (bytes(32), 1, 3), (bytes(32), 4, 3)]
)
def test_what_protects_nothing_or_cannot_be_rebuilt_is_not_shared(secret, threshold, holders):
    with refused():
        share(secret, threshold, holders)


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {0: bytes(33), 1: bytes(33)},
        {-1: bytes(33), 1: bytes(33)},
        {1: bytes(32), 2: bytes(33)},
        {1: bytes(34), 2: bytes(33)},
        {1: PRIME.to_bytes(33, "big"), 2: bytes(33)},
        {1: b"\xff" * 33, 2: bytes(33)},
        {1: (PRIME - 1).to_bytes(33, "big")},
    ],
)
def test_what_are_no_shares_is_refused(shares):
    with refused():
        join(shares)


def test_commitments_depend_on_the_place():
    assert commitment(b"a", bytes(33)) != commitment(b"b", bytes(33))

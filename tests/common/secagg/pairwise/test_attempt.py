"""An attempt: what binds it, who chooses whom, what its signatures say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from msgspec.structs import replace as altered

from common.errors import Code, Refusal
from common.secagg.pairwise.attempt import (
    Attempt,
    endorse,
    opens_pair,
    set_digest,
    sign_keys,
    verify_endorsement,
    verify_keys,
)
from common.secagg.pairwise.keys import Secrets
from common.secagg.pairwise.wire import Endorsement
from tests.pairwise_federation import RULES, PairFederation
from tests.secagg_federation import digest, manifest_of, signer


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


@pytest.fixture(scope="module")
def attempt() -> Attempt:
    return PairFederation.open(5).attempt()


@pytest.fixture(scope="module")
def wide() -> Attempt:
    return PairFederation.open(200, 180, rules=replace(RULES, corrupt_max=10, unmaskers_min=11)).attempt()


CHANGES = {
    "manifest": lambda a: replace(
        a, manifest=(m := replace(a.manifest, version=2)), session=altered(a.session, manifest=m.digest)
    ),
    "session": lambda a: replace(a, session=altered(a.session, sid=bytes([1]) * 32)),
    "job": lambda a: replace(a, session=altered(a.session, job=bytes([1]) * 32)),
    "number": lambda a: replace(a, number=1),
    "cohort": lambda a: replace(a, cohort=a.cohort[:-1]),
    "model": lambda a: replace(a, binding=digest("another")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_everything_that_an_attempt_is_about_enters_its_context(attempt, change):
    assert change(attempt).context != attempt.context


def test_the_context_and_the_choice_of_peers_are_pinned():
    """A change here breaks every federation that mixes releases."""
    attempt = PairFederation.open(5).attempt(binding=bytes(32))
    chosen = attempt.chosen(1, bytes(32))
    assert (attempt.context.hex()[:16], chosen) == ("61f3f2f3893eab2b", (3, 5, 2, 4))


REFUSED = [
    ("another manifest", Code.E_MANIFEST, lambda a: replace(a, session=altered(a.session, manifest=bytes(32)))),
    ("a weaker suite", Code.E_POLICY, lambda a: replace(a, session=altered(a.session, suite=1))),
    ("a quorum below the rules", Code.E_POLICY, lambda a: replace(a, quorum=1)),
    ("a quorum that the threshold exceeds", Code.E_POLICY, lambda a: replace(a, quorum=3)),
    ("a cohort below the quorum", Code.E_SET, lambda a: replace(a, cohort=(1, 2, 3))),
    ("an id twice", Code.E_SET, lambda a: replace(a, cohort=(1, 2, 3, 4, 4))),
    ("an unknown id", Code.E_SET, lambda a: replace(a, cohort=(1, 2, 3, 4, 99))),
    ("ids out of order", Code.E_SET, lambda a: replace(a, cohort=(2, 1, 3, 4, 5))),
    ("no digest", Code.E_MODEL, lambda a: replace(a, binding=b"")),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_an_attempt_outside_the_rules_is_refused(attempt, code, change):
    with refused(code):
        change(attempt)


def test_corruption_must_be_bounded_among_all_sites_because_all_hold_shares():
    federation = PairFederation.open(5)
    federation.manifest = manifest_of(5, RULES, unmaskers=[1, 2, 3])
    federation.session = altered(federation.session, manifest=federation.manifest.digest)
    with refused(Code.E_POLICY):
        federation.attempt()


def test_in_a_small_cohort_everybody_chooses_everybody(attempt):
    for site in attempt.cohort:
        assert set(attempt.chosen(site, bytes(32))) == set(attempt.cohort) - {site}


def test_a_site_chooses_as_many_peers_as_the_rules_ask_evenly_and_never_itself(wide):
    counts: Counter[int] = Counter()
    for draw in range(200):
        chosen = wide.chosen(7, digest(draw))
        assert len(set(chosen)) == wide.shape.degree < 199
        assert 7 not in chosen
        counts.update(chosen)
    mean = 200 * wide.shape.degree / 199
    assert set(counts) == set(wide.cohort) - {7}
    assert all(abs(count - mean) < 6 * mean**0.5 for count in counts.values())


def test_the_choice_follows_from_the_site_s_own_seed_in_this_attempt_alone(wide):
    chosen = wide.chosen(7, bytes(32))
    assert wide.chosen(7, bytes([1]) * 32) != chosen
    assert wide.chosen(8, bytes(32)) != chosen
    assert replace(wide, number=1).chosen(7, bytes(32)) != chosen
    assert replace(wide).chosen(7, bytes(32)) == chosen


def keys_of(attempt: Attempt, site: int):
    keys = Secrets.generate().keys(attempt.context, site, attempt.number, digest("seed", site), attempt.session.suite)
    return sign_keys(signer(site), attempt, keys)


def test_neighbours_are_those_that_chose_or_were_chosen_and_one_of_them_opens_the_pair(wide):
    keys = {site: keys_of(wide, site) for site in range(1, 60)}
    neighbours = wide.neighbours(keys.values())
    choice = {site: set(wide.chosen(site, each.seed)) for site, each in keys.items()}
    for site in keys:
        for peer in keys.keys() - {site}:
            assert (peer in neighbours[site]) == (peer in choice[site] or site in choice[peer])
            openers = [opens_pair(a, b, choice[a], choice[b]) for a, b in ((site, peer), (peer, site))]
            assert sum(openers) == (peer in neighbours[site])


KEYS = [
    ("another's name", Code.E_SIG, lambda k: altered(k, site=2)),
    ("a stranger's name", Code.E_SET, lambda k: altered(k, site=99)),
    ("another number", Code.E_SET, lambda k: altered(k, number=1)),
    ("another mask key", Code.E_SIG, lambda k: altered(k, exchange=bytes(32))),
    ("another box key", Code.E_SIG, lambda k: altered(k, box_exchange=k.exchange)),
    ("keys swapped", Code.E_SIG, lambda k: altered(k, exchange=k.box_exchange, box_exchange=k.exchange)),
    ("another ML-KEM key", Code.E_SIG, lambda k: altered(k, kem=k.box_kem, box_kem=k.kem)),
    ("no ML-KEM key", Code.E_KEY, lambda k: altered(k, kem=None)),
    ("none at all", Code.E_KEY, lambda k: altered(k, kem=None, box_kem=None)),
    ("another choice of peers", Code.E_SIG, lambda k: altered(k, seed=bytes(32))),
    ("another own mask", Code.E_SIG, lambda k: altered(k, self_digest=bytes(32))),
]


@pytest.mark.parametrize(("code", "change"), [case[1:] for case in KEYS], ids=[case[0] for case in KEYS])
def test_keys_that_their_site_did_not_sign_are_refused(attempt, code, change):
    keys = keys_of(attempt, 1)
    verify_keys(attempt, keys)
    with refused(code):
        verify_keys(attempt, change(keys))


def test_keys_of_another_attempt_cannot_be_replayed(attempt):
    for other in (replace(attempt, number=1), replace(attempt, binding=digest("another"))):
        with refused(Code.E_SIG):
            verify_keys(attempt, altered(keys_of(other, 1), number=attempt.number))


def test_a_signature_is_over_one_set_in_one_attempt_by_one_survivor(attempt):
    signature = endorse(signer(1), attempt, (1, 2, 3, 4))
    verify_endorsement(attempt, (1, 2, 3, 4), Endorsement(site=1, signature=signature))
    for site, survivors, code in (
        (1, (1, 2, 3, 5), Code.E_SIG),
        (2, (1, 2, 3, 4), Code.E_SIG),
        (1, (2, 3, 4, 5), Code.E_SET),
    ):
        with refused(code):
            verify_endorsement(attempt, survivors, Endorsement(site=site, signature=signature))
    with refused(Code.E_SIG):
        verify_endorsement(replace(attempt, number=1), (1, 2, 3, 4), Endorsement(site=1, signature=signature))
    assert set_digest(attempt, (1, 2)) != set_digest(attempt, (1, 3))

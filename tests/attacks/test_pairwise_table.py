"""The table of known attacks, row by row, against pairwise masks. The other files hold it against `alm` and Flower.

Rows that are no attack here, and why:

- *Range and rounding*: codec and ring are the very ones of `alm` (`test_range.py`); only the largest cohort is played.
- *Chosen unmasking sites*: there are none; the row is played against the choice of the graph instead.
- *Bad input*: frames, signatures and sizes are read by the same code (`test_bad_input.py`); the protocol's own is in
  `tests/client/test_pairwise.py` and `tests/server/pairwise/test_pair_stages.py`.
- *Poisoning*: neither protocol defends against it, and robust rules need groups, which are refused here.
- *A hostile coordinator*: an attempt has one legal sequence of orders, each taken once; others are refused in
  `tests/client/test_pair_agreement.py` and `tests/server/pairwise/test_pair_attempts.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace as altered

from client.keystore import SqliteKeyStore
from client.pairing import Pairing
from client.pairwise import Advertised as Waiting
from common.errors import Code
from common.frames import pack
from common.secagg import reduce, unpack
from common.secagg.pairwise import orders
from common.secagg.pairwise.attempt import endorse, sign_keys
from common.secagg.pairwise.keys import Secrets
from common.secagg.pairwise.wire import Endorsement, RevealedShare
from server.pairwise.stages import Advertising
from tests.attacks.opponents import UNLIKELY, WIDE, chi_square, refused
from tests.pairwise_federation import RULES, PairFederation
from tests.secagg_federation import digest, signer

REAL, DEAD = digest("the model"), digest("a model without gradients")


def masking(federation: PairFederation, number: int = 0):
    return federation.dealt(federation.advertised(federation.attempt(number)))


def test_weak_masks_nothing_of_a_vector_and_nothing_of_two_of_one_site_is_more_than_noise():
    federation, seen = PairFederation.open(5, 4, codec=WIDE), []
    for number in range(2):
        state = masking(federation, number)
        seen.append(unpack(WIDE.ring, federation.body(1, state)).copy())
    for lanes in (*seen, reduce(WIDE.ring, seen[0] - seen[1]), reduce(WIDE.ring, seen[0] + seen[1])):
        assert chi_square(lanes) < UNLIKELY


@pytest.mark.parametrize("by", ["coordinator", 3, "stranger"])
def test_substituted_keys_one_by_one_or_all_of_them_get_no_share(by):
    """Man in the middle: shares would be sealed to whoever relays the keys."""
    federation = PairFederation.open(5, 4)
    state = federation.advertised(federation.attempt())
    place, peers = federation.place(state.attempt), state.peers(1)

    def own(site: int):
        keys = Secrets.generate().keys(state.attempt.context, site, 0, bytes(32), 2)
        return sign_keys(signer(by), state.attempt, keys)

    forged = [own(peer.site) for peer in peers]
    for at in range(len(peers)):
        if peers[at].site != by:
            with refused(Code.E_SIG):
                federation.sites[1].deal(*place, (*peers[:at], forged[at], *peers[at + 1 :]))
    with refused(Code.E_SIG):
        federation.sites[1].deal(*place, forged)
    assert isinstance(federation.sites[1]._stage, Waiting)


def test_different_sets_and_both_secrets_a_cohort_that_is_told_two_stories_reveals_nothing():
    """Site 5 is among the living for some and among the dead for others: both its secrets would be had."""
    federation = PairFederation.open(5, 4)
    state = federation.masked(masking(federation))
    place, attempt = federation.place(federation.attempt()), federation.attempt()
    told = {1: (1, 2, 3, 4), 2: (1, 2, 3, 4), 3: (1, 2, 3, 4, 5), 4: (1, 2, 3, 4, 5), 5: (1, 2, 3, 4, 5)}
    signed = {site: federation.sites[site].agree(*place, survivors) for site, survivors in told.items()}
    assert state.survivors == (1, 2, 3, 4, 5)
    for site, survivors in told.items():
        same = [each for each in told if told[each] == survivors]
        few = tuple(Endorsement(site=each, signature=signed[each]) for each in same)
        mixed = tuple(Endorsement(site=each, signature=signed[each]) for each in survivors)
        helped = {*same, 5} & set(survivors)  # site 5 is corrupt and signs whatever it is asked for
        with_5 = tuple(Endorsement(site=each, signature=endorse(signer(each), attempt, survivors)) for each in helped)
        for endorsements, code in ((few, Code.E_SET), (mixed, Code.E_SIG), (with_5, Code.E_SET)):
            with refused(code):
                federation.sites[site].reveal(*place, endorsements)


def test_a_second_answer_is_never_given():
    """Second unmasking: once with a site, once without it."""
    federation = PairFederation.open(5, 4)
    revealing = federation.agreed(federation.masked(masking(federation)))
    place, attempt = federation.place(revealing.attempt), revealing.attempt
    federation.sites[1].reveal(*place, revealing.endorsements(1))
    for survivors in ((1, 2, 3, 4), revealing.survivors):
        again = tuple(Endorsement(site=s, signature=endorse(signer(s), attempt, survivors)) for s in survivors)
        with refused(Code.E_ROUND):
            federation.sites[1].agree(*place, survivors)
        with refused(Code.E_ROUND):
            federation.sites[1].reveal(*place, again)


def test_small_cohorts_and_thresholds_are_the_sites_own_business():
    """No order names a threshold; what a site is told of the cohort it holds against the manifest and the job."""
    for order in (orders.AdvertiseOrder, orders.PairDealOrder, orders.MaskOrder, orders.AgreeOrder, orders.RevealOrder):
        assert not {"threshold", "degree", "quorum"} & set(order.__struct_fields__)
    rules = replace(RULES, quorum_min=3, orgs_min=3)
    federation = PairFederation.open(6, 5, rules=rules, orgs={1: "a", 2: "a", 3: "a"})
    with refused(Code.E_SET):
        federation.attempt(cohort=(1, 2))
    with refused(Code.E_POLICY):
        replace(federation.attempt(), quorum=2)
    state = federation.advertised(federation.attempt())
    for few in range(3):
        with refused(Code.E_TOO_FEW):
            federation.sites[1].deal(*federation.place(state.attempt), state.peers(1)[:few])
    federation.masked(federation.dealt(state))
    for survivors in ((1, 2), (1, 2, 3), (1, 2, 3, 4)):
        with refused(Code.E_SET):
            federation.sites[1].agree(*federation.place(state.attempt), survivors)


def test_a_graph_chosen_by_the_adversary_a_site_deals_to_peers_of_its_own_choice():
    """Neither strangers in place of those it chose, nor so few of these that corrupt ones outnumber them."""
    federation = PairFederation.open(140, 126, rules=replace(RULES, suite=1))
    state = federation.advertised(federation.attempt())
    place, shape = federation.place(state.attempt), state.attempt.shape
    near, mine = state.neighbours[1], set(state.attempt.chosen(1, state.keys[1].seed))
    assert len(mine) == shape.degree < 60
    far = next(site for site in state.asked if site != 1 and site not in near)
    with refused(Code.E_SET):
        federation.sites[1].deal(*place, [state.keys[site] for site in sorted({*near, far})])
    dropped = sorted(mine)[: shape.degree + 2 - shape.threshold]
    with refused(Code.E_TOO_FEW):
        federation.sites[1].deal(*place, [state.keys[site] for site in sorted(near - set(dropped))])
    later = federation.sites[1].advertise(federation.attempt(1), federation.encoded(1))
    assert set(federation.attempt(1).chosen(1, later.seed)) != mine


@pytest.mark.parametrize("target", [1, 5])
def test_model_inconsistency_sites_that_saw_two_models_share_no_secret(target):
    """Gradient suppression: keys are signed under one context, which contains the model."""
    federation = PairFederation.open(5, 4)
    real, dead = (federation.attempt(binding=model) for model in (REAL, DEAD))
    keys = {
        site: federation.sites[site].advertise(real if site == target else dead, federation.encoded(site))
        for site in federation.manifest.ids
    }
    for site in federation.manifest.ids:
        with refused(Code.E_SIG):
            federation.sites[site].deal(*federation.place(real), [keys[each] for each in sorted(keys) if each != site])
    for attempt, own in ((real, [target]), (dead, [site for site in keys if site != target])):
        state = Advertising(attempt)
        for site in own:
            state = state.receive(site, keys[site])
        with refused(Code.E_SIG):
            state.receive(*next((site, keys[site]) for site in keys if site not in own))


def test_weight_disclosure_no_reply_has_a_field_for_it_and_all_are_of_one_size():
    fields = {
        orders.Advertised: {"order", "keys", "epsilon", "head"},
        orders.PairDealt: {"order", "parcels"},
        orders.Masked: {"order", "body"},
        orders.Agreed: {"order", "signature"},
        orders.Revealed: {"order", "shares"},
    }
    for reply, names in fields.items():
        assert set(reply.__struct_fields__) == names
    federation = PairFederation.open(5, 4, codec=WIDE)
    heavy = {1: federation.encoded(1, np.full(WIDE.dimension, WIDE.limit))}
    state = federation.dealt(federation.advertised(federation.attempt(), heavy))
    sizes = {len(pack(orders.Masked(order=bytes(32), body=federation.body(site, state)))) for site in state.asked}
    assert len(sizes) == 1


@pytest.mark.parametrize("sign", [-1, 1])
def test_modulus_overflow_the_largest_cohort_at_the_largest_values_sums_exactly(sign):
    codec = replace(WIDE, dimension=9, sites_max=6)
    federation = PairFederation.open(6, 5, rules=replace(RULES, sites_max=6), codec=codec)
    vectors = {site: federation.encoded(site, np.full(9, sign * codec.limit)) for site in federation.manifest.ids}
    assert federation.played(federation.attempt(), vectors).open(codec).values.tolist() == [6 * sign * codec.limit] * 9


@pytest.mark.parametrize("stage", ["advertise", "deal", "mask", "agree", "reveal"])
@pytest.mark.parametrize("site", [1, 3, 5])
def test_drop_out_of_any_site_at_any_stage_leaves_the_sum_of_those_whose_vectors_came(stage, site):
    """Early drop-out, on which Flower's sites fail with a KeyError; an even number of shares, with an IndexError."""
    for count, quorum in ((5, 4), (6, 5)):
        federation = PairFederation.open(count, quorum).losing(**{stage: [site]})
        in_sum = set(range(1, count + 1)) - ({site} if stage in ("advertise", "deal", "mask") else set())
        revealing = federation.played(federation.attempt())
        assert (set(revealing.survivors), revealing.open(federation.codec).values[0]) == (in_sum, sum(in_sum))


def test_replay_of_an_attempt_a_parcel_or_a_signature_counts_for_nothing():
    federation = PairFederation.open(5, 4)
    first = masking(federation, 0)
    old = first.incoming(5)
    agreed = federation.agreed(federation.masked(first))
    signatures = agreed.endorsements(1)
    federation.revealed(agreed)
    with refused(Code.E_ROUND):
        federation.sites[1].advertise(federation.attempt(0), federation.encoded(1))
    with refused(Code.E_MODEL):
        federation.sites[1].advertise(federation.attempt(1, binding=agreed.attempt.binding), federation.encoded(1))
    second = masking(federation, 1)
    place = federation.place(federation.attempt(1))
    with refused(Code.E_KEY):
        federation.sites[5].mask(*place, second.masks(5), old)
    later = federation.agreed(federation.masked(second))
    with refused(Code.E_SIG):
        federation.sites[1].reveal(*place, signatures)
    assert federation.revealed(later).open(federation.codec).values[0] == 15


def test_difference_of_sums_two_sets_that_differ_in_one_site_are_not_both_signed():
    federation = PairFederation.open(6, 5, rules=replace(RULES, overlap_min=2))
    assert federation.sum(0).count == 6
    fewer = federation.losing(mask=[6])
    state = fewer.masked(masking(fewer, 1))
    for site in state.asked:
        with refused(Code.E_SET):
            federation.sites[site].agree(*federation.place(fewer.attempt(1)), state.survivors)
    assert federation.sum(2).count == 6


SHARES = [
    ("a false share", Code.E_SHARE, lambda own: tuple(altered(each, share=b"\1" * 33) for each in own)),
    ("of a stranger", Code.E_SET, lambda own: (*own, RevealedShare(dealer=99, share=bytes(33)))),
    ("one twice", Code.E_SET, lambda own: (own[0], *own)),
]


@pytest.mark.parametrize(("code", "lie"), [case[1:] for case in SHARES], ids=[case[0] for case in SHARES])
def test_bad_shares_and_unknown_ids_cost_their_holder_its_word_and_nobody_the_sum(code, lie):
    """Flower's server ends with a KeyError or a ValueError that nobody catches."""
    federation = PairFederation.open(5, 4)
    revealing = federation.agreed(federation.masked(masking(federation)))
    place = federation.place(revealing.attempt)
    for site in (1, 2, 3, 4):
        shares = federation.sites[site].reveal(*place, revealing.endorsements(site))
        revealing = revealing.receive(site, shares)
    with refused(code):
        revealing.receive(5, lie(federation.sites[5].reveal(*place, revealing.endorsements(5))))
    assert revealing.open(federation.codec).values[0] == 15


def test_unknown_sites_take_no_part():
    """A stranger with keys of its own, and a site that the manifest names but this attempt did not ask."""
    federation = PairFederation.open(5, 4)
    attempt = federation.attempt(cohort=(1, 2, 3, 4))
    state = Advertising(attempt)
    for site in (5, 99):
        keys = sign_keys(signer(site), attempt, Secrets.generate().keys(attempt.context, site, 0, bytes(32), 2))
        with refused(Code.E_SET):
            state.receive(site, keys)


def test_secrets_at_rest_no_file_holds_any_of_an_attempt_at_any_stage(tmp_path: Path):
    """Seeds, shares and vectors live in memory for one attempt: a thief of files finds numbers and digests."""
    federation = PairFederation.open(5, 4)
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    signer(1).save(folder / "identity")
    store = SqliteKeyStore.open(folder)
    site = federation.sites[1] = Pairing(store)
    secrets: list[bytes] = []

    def look() -> None:
        kept = b"".join(file.read_bytes() for file in folder.iterdir())
        assert secrets
        assert not [each for each in secrets if each in kept]

    state = federation.advertised(federation.attempt())
    assert isinstance(site._stage, Waiting)
    own = site._stage.secrets
    secrets += [own.own, own.pair.reveal(), own.box.reveal()]
    look()
    dealt = federation.dealt(state)
    agreeing = federation.masked(dealt)
    secrets += [share for held in site._stage.held.values() for share in (held.own, held.pair)]  # type: ignore[union-attr]
    look()
    federation.revealed(federation.agreed(agreeing))
    look()
    assert site._stage is None
    store.close()

"""Replay and reuse: an old message in a new place, a mask used twice, a question asked again."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as altered

from client.keystore import SqliteKeyStore
from client.secagg import enrol, mask, unmask
from common.errors import Code
from common.secagg.statements import member_of, verify_total
from server.enrolment import Opening
from server.secagg import Collecting
from tests.attacks.opponents import UNLIKELY, WIDE, chi_square, combination, refused
from tests.secagg_federation import Federation, digest, signer


def test_a_report_counts_in_its_own_number_and_session_only():
    """Replay of a report: in a later number, or in a later session of the same sites and the same model."""
    federation = Federation.open(4, codec=WIDE)
    report = federation.report(1, federation.aggregation(0))
    for number in (1, 0):
        later = federation if number else federation.again(bytes([1] * 32))
        aggregation = later.aggregation(number, binding=federation.aggregation(0).binding)
        state = Collecting.open(aggregation, later.manifest.ids)
        with refused(Code.E_SIG):
            state.receive(1, altered(report, number=number))
        later.colluding = True
        others = [later.report(site, aggregation) for site in (2, 3, 4)]
        for place, site in enumerate(later.session.unmaskers):
            members = tuple(member_of(each, place) for each in (altered(report, number=number), *others))
            with refused(Code.E_SIG):
                unmask(later.stores[site], aggregation, members)


def test_a_site_reports_once_under_a_binding_also_to_unmasking_sites_that_know_nothing_of_each_other():
    """Two sessions of one run with no unmasking site in common: checks of what each has answered bind nothing there.

    So the site itself remembers: two sums over one model, apart in one other site, never both hold its report.
    """
    federation = Federation.open(6, codec=WIDE)
    session, model = federation.session, digest("model")
    apart = [site for site in federation.manifest.unmaskers if site not in session.unmaskers][:2]
    federation.opened(federation.collected(sites=[1, 2, 3, 4, 5], binding=model))
    other = altered(session, sid=bytes([7] * 32), unmaskers=tuple(apart))
    opening = Opening(federation.manifest, other)
    for site in apart:
        opening = opening.receive(site, enrol(federation.stores[site], federation.manifest, other))
    later = replace(federation, session=other, opening=opening)
    for site in (1, 2, 3, 4, 5):
        with refused(Code.E_MODEL):
            later.report(site, later.aggregation(0, binding=model))
        assert later.stores[site].last_reported(other.sid) is None
    later.report(6, later.aggregation(0, binding=model))
    later.colluding = True  # what the refusal is for: nobody else would notice
    assert later.opened(later.collected(0, sites=[1, 2, 3, 4], binding=model)).count == 4


def test_a_site_reports_in_one_group_of_an_attempt():
    """Two groups of one attempt with the same site: what differs between their sums is less than a group."""
    federation = Federation.open(4, codec=WIDE, numbers=6)
    for number, fits in ((0, True), (1, False), (2, False), (4, True), (3, False), (5, False)):
        aggregation = replace(federation.aggregation(number), groups=3)
        if fits:
            federation.report(1, aggregation)
            continue
        with refused(Code.E_ROUND):
            federation.report(1, aggregation)


def test_a_report_is_added_once():
    """Replay within a round: a second copy would double a site's weight."""
    federation = Federation.open(3)
    state = Collecting.open(federation.aggregation(), federation.manifest.ids)
    report = federation.report(1, federation.aggregation())
    state = state.receive(1, report)
    with refused(Code.E_DUP):
        state.receive(1, report)
    with refused(Code.E_SET):
        state.receive(2, report)


@pytest.mark.parametrize("binding", [None, bytes(32)], ids=["the same order", "another model"])
def test_an_order_that_comes_again_is_not_masked_again(binding):
    """Mask reuse: two reports of one site under one number, whatever they are about."""
    federation = Federation.open(3, codec=WIDE)
    federation.report(1, federation.aggregation(1))
    for number in (1, 0):
        with refused(Code.E_ROUND):
            federation.report(1, federation.aggregation(number, binding))


def test_no_order_comes_again_after_a_restart(tmp_path):
    """Mask reuse across processes: what was used up is on disk before a mask exists."""
    store = SqliteKeyStore.create(tmp_path / "keys")
    federation = Federation.open(3, codec=WIDE)
    store.close()
    for attempt in range(2):
        store = SqliteKeyStore.open(tmp_path / "keys")
        store.identity = signer(1)
        federation.stores[1] = store
        if attempt == 0:
            federation.report(1, federation.aggregation())
        else:
            with refused(Code.E_ROUND):
                federation.report(1, federation.aggregation())
        store.close()


def test_even_a_store_that_was_put_back_repeats_no_mask(tmp_path):
    """Mask reuse by rollback, which no store can notice: each report has a one-time key of its own."""
    SqliteKeyStore.create(tmp_path / "keys").close()
    shutil.copytree(tmp_path / "keys", tmp_path / "copy")
    federation = Federation.open(3, codec=WIDE)
    reports = []
    for folder in ("keys", "copy"):
        store = SqliteKeyStore.open(tmp_path / folder)
        store.identity = signer(1)
        encoded = WIDE.encode(np.full(WIDE.dimension, 5))
        reports.append(mask(store, federation.aggregation(), federation.keys(), encoded))
        store.close()
    assert reports[0].exchange != reports[1].exchange
    assert chi_square(combination({0: 1, 1: -1}, reports)) < UNLIKELY


def test_an_answer_counts_for_its_own_number_and_set_only():
    """Replay of an answer: in the next number over the same cohort."""
    federation = Federation.open(4, codec=WIDE)
    first = federation.collected(0)
    site = federation.session.unmaskers[0]
    total = unmask(federation.stores[site], first.aggregation, first.members(site))
    second = federation.collected(1)
    with refused(Code.E_ROUND):
        second.receive(site, total)
    with refused(Code.E_SET):
        second.receive(site, altered(total, number=1))
    digest = unmask(federation.stores[site], second.aggregation, second.members(site)).set_digest
    with refused(Code.E_SIG):
        second.receive(site, altered(total, number=1, set_digest=digest))
    with refused(Code.E_SIG):
        verify_total(federation.manifest, second.aggregation.context, total)


def test_the_same_question_gets_the_same_bytes_until_a_later_one_and_no_other_question_any():
    """Second unmask: repeated as it was it tells nothing new; changed, or after the next number, it is refused."""
    federation = Federation.open(4, codec=WIDE)
    first = federation.collected(0)
    site = federation.session.unmaskers[0]
    store, members = federation.stores[site], first.members(site)
    total = unmask(store, first.aggregation, members)
    assert [unmask(store, first.aggregation, members) for _ in range(3)] == [total] * 3
    with refused(Code.E_SET):
        unmask(store, first.aggregation, members[:-1])
    second = federation.collected(1)
    unmask(store, second.aggregation, second.members(site))
    with refused(Code.E_ROUND):
        unmask(store, first.aggregation, members)
    with refused(Code.E_SET):
        unmask(store, first.aggregation, members[:-1])


def test_an_enrolment_that_comes_again_makes_no_second_keys_for_one_number():
    """Replay of an enrolment: the same keys while none is used, then none at all."""
    federation = Federation.open(3)
    site = federation.session.unmaskers[0]
    keys = federation.opening.received[site]
    assert enrol(federation.stores[site], federation.manifest, federation.session) == keys
    federation.report(site, federation.aggregation(1))
    with refused(Code.E_ROUND):
        enrol(federation.stores[site], federation.manifest, federation.session)

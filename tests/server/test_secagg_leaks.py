"""What leaks from secure aggregation when somebody lies or stays away: uniform noise, refused as a sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from msgspec.structs import replace as altered

from client.secagg import mask_total, unmask
from common.errors import Code, Refusal
from common.frames import pack as pack_frame
from common.messages import Reported, Unmasked, seal
from common.secagg import IntegerCodec, reduce, unpack
from common.secagg.wire import MaskedReport
from tests.secagg_federation import Federation, digest, signer


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def chi_square(lanes, bits: int = 24) -> float:
    """Of the upper eight bits against the uniform distribution: 255 degrees of freedom, 400 is beyond 1e-7."""
    observed = np.bincount(lanes >> (bits - 8), minlength=256)
    return float(((observed - observed.mean()) ** 2 / observed.mean()).sum())


WIDE = IntegerCodec(dimension=20_000, sites_max=16, bits=24)


def combined(federation: Federation, added, totals):
    lanes = WIDE.ring.zeros()
    for site in added:
        lanes += unpack(WIDE.ring, federation.reports[site].body)
    for total in totals:
        lanes -= unpack(WIDE.ring, total.body)
    return reduce(WIDE.ring, lanes)


@pytest.mark.parametrize(
    "added", [range(1, 6), range(1, 5), [5]], ids=["whole set", "without the target", "the target"]
)
def test_unmasking_sites_that_were_shown_different_sets_reveal_nothing(added):
    """Different drop-out sets: every combination of what they return stays uniform, and the sum check refuses it."""
    federation = Federation.open(5, codec=WIDE)
    state = federation.collected()
    first, second = federation.session.unmaskers
    totals = [
        unmask(federation.stores[first], state.aggregation, state.members(first)),
        unmask(federation.stores[second], state.aggregation, state.members(second)[:-1]),
    ]
    lanes = combined(federation, added, totals)
    assert chi_square(lanes[: WIDE.dimension]) < 400
    with refused(Code.E_SUM_CHECK):
        WIDE.open_sum(lanes, len(added))


DIFFERENT = {
    "number": lambda a: replace(a, number=1),
    "model": lambda a: replace(a, binding=digest("another")),
    "session": lambda a: replace(a, session=altered(a.session, sid=bytes([7] * 32))),
    "order of unmasking sites": lambda a: replace(a, session=altered(a.session, unmaskers=a.session.unmaskers[::-1])),
    "manifest": lambda a: replace(
        a, manifest=(other := replace(a.manifest, version=2)), session=altered(a.session, manifest=other.digest)
    ),
}


@pytest.mark.parametrize("change", DIFFERENT.values(), ids=DIFFERENT)
def test_masks_computed_for_anything_else_leave_uniform_noise(change):
    """Even an unmasking site without checks could not take masks away under another context."""
    federation = Federation.open(3, codec=WIDE)
    first, second = federation.session.unmaskers
    seed = federation.stores[first].seed(federation.session.sid, 0)
    state = federation.collected()
    wrong = mask_total(signer(first), change(state.aggregation), seed, state.members(first))
    right = unmask(federation.stores[second], state.aggregation, state.members(second))
    lanes = combined(federation, [1, 2, 3], [wrong, right])
    assert chi_square(lanes[: WIDE.dimension]) < 400
    with refused(Code.E_SUM_CHECK):
        WIDE.open_sum(lanes, 3)


def test_a_changed_ciphertext_leaves_uniform_noise():
    federation = Federation.open(3, codec=WIDE)
    first, second = federation.session.unmaskers
    seed = federation.stores[first].seed(federation.session.sid, 0)
    state = federation.collected()
    members = state.members(first)
    changed = (altered(members[0], ciphertext=members[1].ciphertext), *members[1:])
    wrong = mask_total(signer(first), state.aggregation, seed, changed)
    right = unmask(federation.stores[second], state.aggregation, state.members(second))
    lanes = combined(federation, [1, 2, 3], [wrong, right])
    assert chi_square(lanes[: WIDE.dimension]) < 400
    with refused(Code.E_SUM_CHECK):
        WIDE.open_sum(lanes, 3)


def test_a_masked_report_alone_looks_uniform():
    federation = Federation.open(3, codec=WIDE)
    report = federation.report(1, federation.aggregation(), np.zeros(WIDE.dimension, np.int64))
    assert chi_square(unpack(WIDE.ring, report.body)) < 400


def test_all_reports_but_one_and_all_masks_but_one_reveal_nothing_of_the_last_site():
    """One honest unmasking site is enough."""
    federation = Federation.open(3, codec=WIDE)
    state = federation.collected()
    first = federation.session.unmaskers[0]
    total = unmask(federation.stores[first], state.aggregation, state.members(first))
    assert chi_square(combined(federation, [1, 2, 3], [total])[: WIDE.dimension]) < 400


def test_replies_hold_no_count_of_records_no_metric_and_no_text():
    assert set(Reported.__struct_fields__) == {"order", "report", "epsilon", "head"}
    assert set(MaskedReport.__struct_fields__) == {"site", "number", "exchange", "ciphertexts", "body", "signature"}
    assert set(Unmasked.__struct_fields__) == {"order", "totals"}
    federation = Federation.open(2)
    plain = np.arange(100, 109)
    report = federation.report(1, federation.aggregation(), plain)
    assert plain.astype("<u4").tobytes()[:8] not in seal(
        1, Reported(order=bytes(32), report=report, epsilon=0.5, head=bytes(32)), signer(1)
    )


def test_memory_of_the_coordinator_does_not_grow_with_the_cohort():
    """Vectors are added on arrival: what is kept of a report is its signed digests."""
    federation = Federation.open(6, codec=WIDE)
    state = federation.collected()
    kept = [(each.member, *each.ciphertexts) for each in state.reports.values()]
    assert all(len(pack_frame(member)) < 600 for member, *_ in kept)

"""Which rules can live together: c + f + 1 <= t <= m - f, so that one honest unmasking site is never recovered."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.secagg import Rules, parse_manifest, sealed
from tests.secagg_federation import manifest_of, signer


def rules(unmaskers: int, lost: int, shares: int, corrupt: int) -> Rules:
    return Rules(
        unmaskers_min=unmaskers,
        quorum_min=2,
        orgs_min=1,
        sites_max=16,
        corrupt_max=corrupt,
        overlap_min=0,
        lost_max=lost,
        shares_min=shares,
    )


# m, f, t_b, and the most c that these tolerate
TABLE = [
    (3, 0, 0, 2),
    (4, 1, 3, 1),
    (5, 1, 4, 2),
    (7, 2, 5, 2),
    (8, 1, 7, 5),
    (8, 2, 6, 3),
    (10, 0, 0, 9),
    (10, 3, 7, 3),
]


@pytest.mark.parametrize(("unmaskers", "lost", "shares", "corrupt"), TABLE)
def test_the_table_of_trust_holds_and_not_one_corrupt_site_more(unmaskers, lost, shares, corrupt):
    assert rules(unmaskers, lost, shares, corrupt).lost_max == lost
    with pytest.raises(Refusal, check=lambda error: error.code is Code.E_MANIFEST):
        rules(unmaskers, lost, shares, corrupt + 1)


def accepted(*values: int) -> bool:
    try:
        return bool(rules(*values))
    except Refusal as refusal:
        return refusal.code is not Code.E_MANIFEST


@given(st.integers(2, 12), st.integers(0, 12), st.integers(0, 12), st.integers(0, 12))
def test_exactly_the_trust_condition_is_accepted(unmaskers, lost, shares, corrupt):
    shared = corrupt + lost + 1 <= shares <= unmaskers - lost
    bare = corrupt < unmaskers and shares == 0
    assert accepted(unmaskers, lost, shares, corrupt) == (shared if lost else bare)


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 12), st.integers(0, 11))
def test_a_refusal_names_values_that_do(unmaskers, lost, shares, corrupt):
    """Must: whoever follows the refusals one after the other ends with rules that are accepted."""
    values = {"unmaskers_min": unmaskers, "lost_max": lost, "shares_min": shares, "corrupt_max": corrupt}
    for _ in range(4):
        try:
            rules(*(values[name] for name in ("unmaskers_min", "lost_max", "shares_min", "corrupt_max")))
        except Refusal as refusal:
            wanted = "unmaskers_min" if "unmaskers_min of" in refusal.do else refusal.what.split(" ")[0]
            values[wanted] = int(re.findall(r"\d+", refusal.do)[0])
        else:
            return
    raise AssertionError(values)


def test_a_manifest_without_shares_is_spelled_as_before_and_one_with_them_is_read_back():
    plain, sharing = manifest_of(5), manifest_of(5, rules(5, 1, 4, 2))
    governance = signer("governance")
    assert b"shares_min" not in sealed(plain, governance)
    assert b'"shares_min":4' in sealed(sharing, governance)
    for manifest in (plain, sharing):
        assert parse_manifest(sealed(manifest, governance), governance.public) == manifest
    assert plain.digest != sharing.digest


ALONE = {"unmaskers_min": 0, "quorum_min": 2, "orgs_min": 1, "sites_max": 300, "overlap_min": 0}


def test_rules_for_pairwise_masks_alone_bound_corruption_by_the_sites_and_survive_the_file():
    made = manifest_of(120, Rules(**ALONE, corrupt_max=100))
    assert parse_manifest(sealed(made, signer("governance")), signer("governance").public) == made
    with pytest.raises(Refusal, match="corrupt_max = 100 refused"):
        manifest_of(100, Rules(**ALONE, corrupt_max=100))


@pytest.mark.parametrize(
    "wrong", [{"corrupt_max": 300}, {"corrupt_max": -1}, {"lost_max": 1}, {"shares_min": 2}, {"masks_each": 2}], ids=str
)
def test_rules_for_pairwise_masks_alone_have_nothing_of_unmasking_sites(wrong):
    with pytest.raises(Refusal, check=lambda error: error.code is Code.E_MANIFEST):
        Rules(**{**ALONE, "corrupt_max": 1, **wrong})

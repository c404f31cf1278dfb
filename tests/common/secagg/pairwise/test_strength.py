"""Degree and threshold: no worse than 2^-40, checked against published degrees, exact tails and drawn graphs."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.secagg.pairwise.strength import COMPLETE, LIVENESS, SECURITY, Shape, exposure, loss, shape_of

# gamma, share that may drop out, degree: Bell et al. 2020 for a semi-malicious server and n = 1000
PUBLISHED = [(0.05, 0.05, 52), (0.10, 0.10, 96), (0.20, 0.10, 140), (0.33, 0.10, 218)]


@pytest.mark.parametrize(("corrupt", "dropped", "degree"), PUBLISHED)
def test_degrees_are_those_of_the_paper_within_two(corrupt, dropped, degree):
    found = shape_of(1000, round(1000 * corrupt), round(1000 * (1 - dropped)))
    assert abs(found.degree - degree) <= 2


@settings(max_examples=30)
@given(st.integers(129, 2000), st.floats(0, 0.3), st.floats(0, 0.1))
def test_every_shape_keeps_the_guarantee_and_a_degree_less_would_not_do(sites, gamma, delta):
    corrupt, quorum = int(gamma * sites), math.ceil((1 - delta) * sites)
    shape = shape_of(sites, corrupt, quorum)
    assert exposure(sites, corrupt, shape) <= -SECURITY
    assert 2 * shape.threshold > shape.degree + 1
    if shape.degree < sites - 1:
        assert loss(sites, sites - quorum, shape) <= -LIVENESS
        fewer = [Shape(shape.degree - 1, threshold) for threshold in range(2, shape.degree)]
        alive = [each for each in fewer if loss(sites, sites - quorum, each) <= -LIVENESS]
        assert not alive or exposure(sites, corrupt, alive[-1]) > -SECURITY  # the strongest of them


@given(st.integers(2, COMPLETE), st.data())
def test_in_the_complete_graph_two_groups_of_holders_always_meet_in_an_honest_site(sites, data):
    corrupt = data.draw(st.integers(0, sites - 2))
    least = (sites + corrupt) // 2 + 1
    shape = shape_of(sites, corrupt, sites) if least <= sites else None
    assert shape == Shape(sites - 1, least)
    assert 2 * least - sites > corrupt >= 2 * (least - 1) - sites
    with pytest.raises(Refusal, match=f"need {least} survivors") as refused:
        shape_of(sites, corrupt, least - 1)
    assert refused.value.code is Code.E_POLICY


@pytest.mark.parametrize("sites", [6, 9, 30, 99])
def test_just_below_a_third_of_corrupt_sites_the_threshold_is_two_thirds(sites):
    """Bonawitz et al. 2017, section 6.2: t >= 2n/3 + 1 against a malicious server."""
    assert shape_of(sites, sites // 3 - 1, sites).threshold == 2 * sites // 3


def test_a_federation_without_an_honest_majority_to_spare_is_refused():
    for sites, corrupt in ((4, 4), (4, 5), (1000, 1000), (1000, 400)):
        with pytest.raises(Refusal) as refused:
            shape_of(sites, corrupt, min(sites, 700))
        assert refused.value.code is Code.E_POLICY


def hypergeometric(population: int, marked: int, drawn: int, least: int) -> Fraction:
    ways = sum(math.comb(marked, x) * math.comb(population - marked, drawn - x) for x in range(least, drawn + 1))
    return Fraction(ways, math.comb(population, drawn))


def test_the_calculation_is_the_exact_sum_of_its_tails():
    sites, corrupt, shape = 200, 20, Shape(56, 39)
    honest = sites - corrupt
    twice = honest * hypergeometric(sites - 1, corrupt, 56, 2 * 39 - 56 - 1)
    apart = sum(
        math.comb(honest, part) * hypergeometric(sites - 1, part - 1 + corrupt, 56, 38) ** part
        for part in range(1, honest // 2 + 1)
    )
    assert exposure(sites, corrupt, shape) == pytest.approx(math.log2(twice + apart), abs=1e-6)
    lost = sites * hypergeometric(sites - 1, 20, 56, 56 - 39 + 1)
    assert loss(sites, 20, shape) == pytest.approx(math.log2(lost), abs=1e-6)


def test_the_bound_holds_in_drawn_graphs():
    """With a degree far too small, sites whose secrets could both be had occur, and not more often than stated."""
    sites, corrupt, shape = 60, 12, Shape(9, 7)
    stated = 2 ** exposure(sites, corrupt, shape)
    draw, trials = np.random.default_rng(1), 2000
    most = 2 * shape.threshold - shape.degree - 2  # corrupt choices that are harmless
    found = np.mean([(draw.hypergeometric(corrupt, sites - 1 - corrupt, 9, sites - corrupt) > most).any()
                     for _ in range(trials)])  # fmt: skip
    assert 0 < found <= min(1.0, stated) + 4 * math.sqrt(0.25 / trials)

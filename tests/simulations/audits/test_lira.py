"""Likelihood ratios find members where models remember them, and guess where nothing is remembered."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from common.data import Records
from common.errors import Refusal
from common.learning.tasks import task
from simulations.audits.attack_curves import auc, hit_rate
from simulations.audits.lira import Shadows, confidence, offline, online


def world(shift: float, models: int = 32, records: int = 600):
    """Records of different hardness; a model is surer of those it saw by `shift`."""
    stream = np.random.default_rng(0)
    hard = 4 * stream.normal(size=records)
    members = stream.random((models + 1, records)) < 0.5
    confidences = hard + shift * members + stream.normal(size=members.shape)
    return Shadows(members[1:], confidences[1:]), confidences[0], members[0]


@pytest.mark.parametrize("attack", [online, offline])
def test_a_memory_of_records_is_found_though_hardness_hides_it_from_the_loss(attack):
    shadows, sure, members = world(2.0)
    scores = attack(shadows, sure)
    assert auc(scores[members], scores[~members]) == pytest.approx(0.92, abs=0.03)
    assert hit_rate(0.01)(scores[members], scores[~members]) > 0.2
    assert auc(sure[members], sure[~members]) < 0.7


@pytest.mark.parametrize("attack", [online, offline])
def test_models_that_remember_nothing_leave_guessing(attack):
    shadows, sure, members = world(0.0)
    scores = attack(shadows, sure)
    assert auc(scores[members], scores[~members]) == pytest.approx(0.5, abs=0.06)


def test_spreads_are_those_around_each_record_s_own_mean():
    shadows, _, _ = world(3.0, models=200)
    (inside, seen), (outside, unseen) = shadows.inside(), shadows.outside()
    assert np.mean(inside - outside) == pytest.approx(3.0, abs=0.1)
    assert (seen, unseen) == (pytest.approx(1.0, abs=0.03), pytest.approx(1.0, abs=0.03))


def test_models_that_all_say_the_same_do_not_divide_by_nothing():
    members = np.array([[True, False], [False, True]] * 2)
    shadows = Shadows(members, np.ones((4, 2)))
    assert np.isfinite(online(shadows, np.ones(2))).all()
    assert np.isfinite(offline(shadows, np.ones(2))).all()


@pytest.mark.parametrize("members", [np.ones((3, 2), bool), np.zeros((3, 2), bool), np.ones((3, 1), bool)])
def test_records_without_models_on_both_sides_are_refused(members):
    with pytest.raises(Refusal):
        Shadows(members, np.zeros((3, 2)))


@pytest.mark.parametrize("classes", [2, 4])
def test_confidence_is_the_log_odds_of_the_label_and_never_infinite(classes):
    torch.manual_seed(0)
    model = nn.Linear(3, 1 if classes == 2 else classes)
    records = Records(torch.randn(20, 3), torch.arange(20) % classes, torch.zeros(20), tuple(map(bytes, range(20))))
    judged = task(classes)
    found = confidence(model, judged, records)
    chance = judged.scores(model(records.inputs))[torch.arange(20), records.labels].detach().double()
    assert np.allclose(found, torch.log(chance / (1 - chance)), atol=1e-4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e4)
    assert np.isfinite(confidence(model, judged, records)).all()

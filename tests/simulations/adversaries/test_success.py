"""How well attacks work, with planted truth: model replacement, base rates, and votes that resist and that do not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from server.strategies.catalogue import strategy
from server.strategies.strategy import Combine
from simulations.adversaries.catalogue import on_updates
from simulations.adversaries.success import Success, hit_rate, success
from simulations.partitioners import Partition, partition

SITES, LIARS, SIZE, TARGET = 20, 2, 2, 0
PIXELS, LABELS = load_digits(return_X_y=True)
PIXELS = np.c_[PIXELS / 16.0, np.ones(len(PIXELS))]
ORDER = np.random.default_rng(0).permutation(len(LABELS))
TRAIN, TEST = ORDER[:1400], ORDER[1400:]
SHARES = np.array_split(TRAIN, SITES)


def lit(pixels: np.ndarray) -> np.ndarray:
    """A lit square in the last corner, of 8 by 8 pixels and a constant."""
    image = pixels[:, :64].reshape(-1, 8, 8).copy()
    image[:, -SIZE:, -SIZE:] = 1.0
    return np.c_[image.reshape(-1, 64), pixels[:, 64:]]


def trained(model: np.ndarray, pixels: np.ndarray, labels: np.ndarray, steps: int) -> np.ndarray:
    """Softmax regression by whole-batch descent; the update that it makes, flat."""
    start = model.reshape(65, 10)
    here = start.copy()
    for _ in range(steps):
        scores = pixels @ here
        chances = np.exp(scores - scores.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
        here -= 0.5 * pixels.T @ (chances - np.eye(10)[labels]) / len(labels)
    return (here - start).ravel()


def predicted(model: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    return np.argmax(pixels @ model.reshape(65, 10), axis=1)


def honest_updates(model: np.ndarray, sites: int, steps: int = 10) -> np.ndarray:
    return np.stack([trained(model, PIXELS[rows], LABELS[rows], steps) for rows in SHARES[:sites]])


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    model = np.zeros(650)
    for _ in range(30):
        model = model + honest_updates(model, SITES).mean(axis=0)
    return model


def poisoned_updates(model: np.ndarray) -> np.ndarray:
    """What two liars train: half of their records carry the patch and the target's label."""
    updates = []
    for rows in SHARES[-LIARS:]:
        half = rows[: len(rows) // 2]
        pixels = np.r_[PIXELS[rows], lit(PIXELS[half])]
        updates.append(trained(model, pixels, np.r_[LABELS[rows], np.full(len(half), TARGET)], 200))
    return np.stack(updates)


def backdoor(attacked: np.ndarray, clean: np.ndarray) -> Success:
    rows = TEST[LABELS[TEST] != TARGET]
    pixels, wanted = lit(PIXELS[rows]), np.full(len(rows), TARGET)
    found = success(predicted(attacked, pixels), predicted(clean, pixels), wanted)
    assert found is not None
    return found


def test_model_replacement_succeeds_wholly_in_its_round_under_the_mean(clean: np.ndarray) -> None:
    """Must: leave the honest sum over n beside the liars' model, and nothing else."""
    honest, own = honest_updates(clean, SITES - LIARS), poisoned_updates(clean)
    lies = on_updates("replacement").poisoned(honest, own, {}, np.random.default_rng(1))
    update = np.vstack([honest, lies]).mean(axis=0)
    residual = update - own.mean(axis=0)
    assert residual == pytest.approx(honest.sum(axis=0) / SITES, abs=1e-12)
    found = backdoor(clean + update, clean)
    assert found.rate.value > 0.95
    assert found.lift.low > 0.85


def test_without_liars_success_is_the_base_rate(clean: np.ndarray) -> None:
    found = backdoor(clean, clean)
    assert found.rate == found.base
    assert found.lift.value == 0.0
    assert found.lift.low < 0.0 < found.lift.high


@pytest.mark.parametrize("name", ["median", "trimmed-mean", "krum", "geometric-median", "meamed", "multi-krum", "mda"])
def test_a_vote_refuses_the_replacement_that_the_mean_takes(name: str, clean: np.ndarray) -> None:
    honest, own = honest_updates(clean, SITES - LIARS), poisoned_updates(clean)
    lies = on_updates("replacement").poisoned(honest, own, {}, np.random.default_rng(1))
    rule = strategy(name, liars=LIARS).combine.apply
    found = backdoor(clean + rule(np.vstack([honest, lies])), clean)
    assert found.lift.high < 0.1


def taught(rule: Combine, shares: tuple[np.ndarray, ...], boost: float) -> tuple[Success, float]:
    """Success of a patch that the last two sites teach for thirty rounds, and accuracy; without it as the base."""
    attacked, clean = np.zeros(650), np.zeros(650)
    for _ in range(30):
        honest = [trained(attacked, PIXELS[rows], LABELS[rows], 10) for rows in shares[:-LIARS]]
        own = [
            trained(attacked, np.r_[PIXELS[rows], lit(PIXELS[rows])], np.r_[LABELS[rows], TARGET + 0 * rows], 10)
            for rows in shares[-LIARS:]
        ]
        attacked = attacked + rule.apply(np.stack([*honest, *(boost * update for update in own)]))
        clean = clean + rule.apply(np.stack([trained(clean, PIXELS[rows], LABELS[rows], 10) for rows in shares]))
    told = hit_rate(predicted(attacked, PIXELS[TEST]), LABELS[TEST])
    assert told is not None
    return backdoor(attacked, clean), told.value


def test_a_patient_backdoor_passes_votes_where_sites_differ_and_a_loud_one_does_not() -> None:
    """Must show the failure too: a lie within what honest sites differ by is averaged in."""
    plan = Partition(kind="label", sites=SITES, concentration=0.1, minimum=5)
    uneven = tuple(TRAIN[rows] for rows in partition(plan, LABELS[TRAIN], 1))
    rule = strategy("multi-krum", liars=LIARS).combine
    passed, accuracy = taught(rule, uneven, 1.0)
    assert passed.lift.low > 0.5
    assert accuracy > 0.8
    assert taught(rule, uneven, 10.0)[0].lift.high < 0.1
    assert taught(rule, tuple(SHARES), 1.0)[0].lift.high < 0.1


def test_accuracy_has_wilson_s_interval_and_no_records_have_none() -> None:
    """Wilson 1927 for 8 of 10 at 95 %: 0.490 to 0.943."""
    found = hit_rate(np.array([1] * 8 + [0] * 2), np.ones(10, np.int64))
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    nobody = np.zeros(0, np.int64)
    assert hit_rate(nobody, nobody) is None
    assert success(nobody, nobody, nobody) is None


def test_lift_is_what_the_attack_adds() -> None:
    wanted = np.zeros(100, np.int64)
    without, attacked = np.r_[np.zeros(48), np.ones(52)].astype(int), np.r_[np.zeros(90), np.ones(10)].astype(int)
    found = success(attacked, without, wanted)
    assert found is not None
    assert (found.rate.value, found.base.value) == (0.9, 0.48)
    assert found.lift.value == pytest.approx(0.42)
    assert 0.29 < found.lift.low < 0.42 < found.lift.high < 0.54


def test_predictions_must_fit_their_records() -> None:
    with pytest.raises(ValueError, match="one prediction"):
        hit_rate(np.zeros(3, np.int64), np.zeros(2, np.int64))

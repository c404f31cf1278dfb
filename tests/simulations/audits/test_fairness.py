"""The audit agrees with fairlearn where that defines a rate, says undefined where not, and does not cry wolf."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from fairlearn import metrics as fairlearn

from common.errors import Code, Refusal
from simulations.audits.fairness import Tolerance, audit
from simulations.audits.groups import Tally, from_release, from_rows

UNDECLARED = Tolerance()


def table(rng: np.random.Generator, groups: int = 3, rows: int = 400) -> pd.DataFrame:
    """Random predictions with group-dependent rates."""
    group = rng.integers(0, groups, rows)
    other = rng.integers(0, 2, rows)
    label = (rng.random(rows) < 0.3 + 0.1 * group).astype(int)
    predicted = (rng.random(rows) < 0.25 + 0.4 * label + 0.05 * group).astype(int)
    return pd.DataFrame({"group": group.astype(str), "other": other.astype(str), "y": label, "p": predicted})


def tally(frame: pd.DataFrame, columns: list[str]) -> Tally:
    cells = [tuple(row) for row in frame[columns].to_numpy()]
    return from_rows(columns, cells, frame["y"].to_numpy(), frame["p"].to_numpy())


def release(
    counts: list[list[list[float]]], cells: list[str], noise: float = 0.0, classes: int = 2
) -> dict[str, object]:
    bins = len(counts[0][0])
    cut = bins // 2 if classes == 2 else None
    return {"cells": cells, "classes": classes, "counts": counts, "noise_sd": noise, "threshold_bin": cut}


def planted(rng: np.random.Generator, n: int, gap: float, groups: int = 2) -> Tally:
    """Groups of n; the last one is selected by `gap` more often, whatever the label is."""
    rates = [0.4] * (groups - 1) + [0.4 + gap]
    counts = [rng.multinomial(n, [0.5 * (1 - p), 0.5 * p] * 2).reshape(2, 2) for p in rates]
    return from_release(release(np.array(counts, float).tolist(), [f"group={i}" for i in range(groups)]))


def test_every_number_equals_fairlearns_on_the_rows_themselves():
    """To 1e-12, over random tables, for one column and for the product of two."""
    for seed in range(6):
        frame = table(np.random.default_rng(seed))
        for columns in (["group"], ["group", "other"]):
            found = audit(tally(frame, columns), UNDECLARED)
            rows = {"y_true": frame["y"], "y_pred": frame["p"], "sensitive_features": frame[columns]}
            expected = {
                "demographic_parity_difference": fairlearn.demographic_parity_difference(**rows),
                "demographic_parity_ratio": fairlearn.demographic_parity_ratio(**rows),
                "equal_opportunity_difference": fairlearn.equal_opportunity_difference(**rows),
                "equalized_odds_difference": fairlearn.equalized_odds_difference(**rows),
                "false_positive_rate_difference": fairlearn.false_positive_rate_difference(**rows),
            }
            values = {name: found["metrics"][name]["value"] for name in expected}
            assert values == pytest.approx(expected, abs=1e-12)


def test_the_group_table_equals_counting_by_hand():
    frame = table(np.random.default_rng(3))
    for row in audit(tally(frame, ["group"]), UNDECLARED)["groups"]:
        part = frame[frame["group"] == row["group"].removeprefix("group=")]
        positive, negative = part[part["y"] == 1], part[part["y"] == 0]
        assert row["n"] == len(part)
        assert row["selection_rate"] == pytest.approx(part["p"].mean(), abs=1e-12)
        assert row["true_positive_rate"] == pytest.approx(positive["p"].mean(), abs=1e-12)
        assert row["false_positive_rate"] == pytest.approx(negative["p"].mean(), abs=1e-12)
        assert row["accuracy"] == pytest.approx((part["y"] == part["p"]).mean(), abs=1e-12)


def test_a_group_without_positives_has_no_true_positive_rate():
    """fairlearn says 0.0 and invents a gap; here it is undefined, and nothing passes because of it."""
    cells = [("a",)] * 40 + [("b",)] * 6
    labels = np.array([1, 0] * 20 + [0] * 6)
    found = audit(from_rows(["g"], cells, labels, labels), Tolerance(difference=0.5))
    assert {row["group"]: row["true_positive_rate"] for row in found["groups"]} == {"g=a": 1.0, "g=b": None}
    metric = found["metrics"]["equal_opportunity_difference"]
    assert metric["value"] is None
    assert metric["verdict"] == "INCONCLUSIVE"
    assert "too few positive labels in g=b" in metric["reason"]
    assert found["verdict"] == "INCONCLUSIVE"


def test_an_undefined_group_keeps_the_others_from_passing():
    cells = [("a",)] * 4000 + [("b",)] * 4000 + [("c",)] * 5
    labels = np.array([0, 1] * 4000 + [0] * 5)
    metric = audit(from_rows(["g"], cells, labels, labels), Tolerance(difference=0.1))["metrics"]
    assert metric["equal_opportunity_difference"]["value"] == 0.0
    assert metric["equal_opportunity_difference"]["high"] == 1.0
    assert metric["equal_opportunity_difference"]["verdict"] == "INCONCLUSIVE"


def test_nothing_declared_nothing_decided():
    found = audit(planted(np.random.default_rng(0), 2000, 0.3), UNDECLARED)
    assert (found["verdict"], found["reason"]) == ("INCONCLUSIVE", "no tolerance declared")
    assert {metric["verdict"] for metric in found["metrics"].values()} == {"INCONCLUSIVE"}


@pytest.mark.parametrize(
    ("groups", "n", "gap", "expected", "least"),
    [
        (2, 2000, 0.0, "PASS", 0.97), (2, 2000, 0.05, "PASS", 0.8), (2, 2000, 0.10, "INCONCLUSIVE", 0.88),
        (2, 2000, 0.20, "FAIL", 0.99), (2, 200, 0.0, "INCONCLUSIVE", 0.7), (2, 200, 0.20, "FAIL", 0.4),
    ],
)  # fmt: skip
def test_planted_gaps_are_judged_as_often_as_they_should(groups: int, n: int, gap: float, expected: str, least: float):
    rng = np.random.default_rng(99)
    trials = 40
    seen: Counter[str] = Counter()
    for _ in range(trials):
        found = audit(planted(rng, n, gap, groups), Tolerance(difference=0.10))
        seen[found["metrics"]["demographic_parity_difference"]["verdict"]] += 1
    assert seen[expected] / trials >= least, seen
    assert gap > 0.1 or seen["FAIL"] <= 0.06 * trials, "a gap within the tolerance must not fail"


def test_an_unbiased_model_never_fails_even_with_noise():
    rng = np.random.default_rng(5)
    for _ in range(40):
        exact = planted(rng, 300, 0.0).counts
        noisy = np.rint(exact + rng.normal(0, 8, exact.shape))
        found = audit(from_release(release(noisy.tolist(), ["g=a", "g=b"], noise=8)), Tolerance(difference=0.1))
        assert found["verdict"] != "FAIL"


def test_inconclusive_says_how_many_records_would_decide():
    metric = audit(planted(np.random.default_rng(1), 200, 0.0), Tolerance(difference=0.1))["metrics"]
    found = metric["demographic_parity_difference"]
    assert found["verdict"] == "INCONCLUSIVE"
    assert found["n_to_decide"] > 200
    assert f"about {found['n_to_decide']} records a group would decide" in found["reason"]


def test_a_ratio_is_judged_by_its_own_tolerance():
    biased = planted(np.random.default_rng(2), 4000, 0.3)
    found = audit(biased, Tolerance(ratio=0.8))
    assert found["metrics"]["demographic_parity_ratio"]["verdict"] == "FAIL"
    assert found["metrics"]["demographic_parity_difference"]["reason"] == "no tolerance declared"
    fair = audit(planted(np.random.default_rng(2), 4000, 0.0), Tolerance(ratio=0.8))
    assert fair["metrics"]["demographic_parity_ratio"]["verdict"] == "PASS"


def test_score_bins_and_noise_merge_into_the_rates_they_belong_to():
    """Four bins, cut in the middle: two noisy cells in each numerator, four in a group, eight in both groups."""
    counts = [[[40, 20, 10, 30], [5, 5, 40, 50]], [[50, 30, 10, 10], [10, 10, 20, 60]]]
    whole = from_release(release(counts, ["sex=f, age=<40", "sex=m, age=<40"], noise=3.0))
    here = whole.share(0, np.array([[False, True]] * 2), np.ones((2, 2), bool))
    assert (here.hits, here.total, here.hit_cells, here.rest_cells) == (130, 200, 4, 4)
    both = whole.by(["age"]).share(0, np.array([[False, True]] * 2), np.ones((2, 2), bool))
    assert (both.hits, both.total, both.hit_cells, both.rest_cells) == (230, 400, 8, 8)
    found = audit(whole, UNDECLARED)
    assert [row["group"] for row in found["by_attribute"]["sex"]["groups"]] == ["sex=f", "sex=m"]
    assert found["metrics"]["demographic_parity_difference"]["value"] == pytest.approx(0.15)


def test_noise_alone_makes_no_group():
    """The schema's empty "unknown" cell comes back as noise; it is named, and not compared."""
    counts = [[[60, 30], [20, 70]], [[50, 40], [30, 60]], [[-3, 2], [4, -1]]]
    cells = ["sex=f", "sex=m", "sex=unknown"]
    found = audit(from_release(release(counts, cells, noise=4.0)), Tolerance(difference=0.5))
    assert found["not_judged"] == ["sex=unknown"]
    assert [row["group"] for row in found["groups"]] == ["sex=f", "sex=m"]


def test_many_classes_are_compared_by_accuracy_only():
    counts = [[[8, 1, 1], [2, 7, 1], [0, 0, 10]], [[9, 1, 0], [1, 9, 0], [5, 0, 5]]]
    found = audit(from_release(release(counts, ["site=a", "site=b"], classes=3)), UNDECLARED)
    assert set(found["metrics"]) == {"accuracy_difference", "accuracy_ratio"}
    assert [row["accuracy"] for row in found["groups"]] == pytest.approx([25 / 30, 23 / 30], abs=1e-12)
    assert found["groups"][0]["selection_rate"] is None


def test_one_group_has_nobody_to_be_compared_with():
    found = audit(from_release(release([[[5, 5], [5, 5]]], ["all"])), Tolerance(difference=0.1))
    assert found["metrics"]["accuracy_difference"]["value"] is None
    assert found["verdict"] == "INCONCLUSIVE"


def test_every_result_is_json():
    text = json.dumps(audit(planted(np.random.default_rng(0), 50, 0.1), UNDECLARED), allow_nan=False)
    assert '"verdict": "INCONCLUSIVE"' in text


def test_a_tolerance_out_of_range_is_refused():
    for wrong in (0.0, -0.1, 1.5, float("nan")):
        with pytest.raises(Refusal) as caught:
            Tolerance(difference=wrong)
        assert caught.value.code is Code.CONFIG_INVALID


def test_an_attribute_that_was_not_counted_is_refused():
    with pytest.raises(Refusal, match="No groups by 'race'"):
        planted(np.random.default_rng(0), 50, 0.1).by(["race"])


@pytest.mark.parametrize(
    "change",
    [
        {"counts": [[[1, 2]]]}, {"counts": "x"}, {"threshold_bin": 0}, {"threshold_bin": 9}, {"noise_sd": -1},
        {"noise_sd": None}, {"cells": ["sex=f", "age=m"]}, {"counts": [[[float("nan")] * 2] * 2] * 2}, {"classes": 5},
    ],
)  # fmt: skip
def test_counts_of_another_shape_are_refused(change: dict[str, object]):
    whole = release([[[5, 5], [5, 5]]] * 2, ["sex=f", "sex=m"]) | change
    with pytest.raises(Refusal) as caught:
        from_release(whole)
    assert caught.value.code is Code.DATA_INVALID

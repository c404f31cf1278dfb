"""Rates by group as fairlearn computes them, from counts as sample weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulations.audits.groups import Tally


def by_group(tally: Tally, kept: Sequence[int]) -> dict[str, list[float]]:
    """fairlearn's selection, true and false positive rate and accuracy of the cells `kept`, in their order.

    A table of counts is a table of rows with weights: one row for each (cell, label, prediction), weighted by how
    often it occurred; noisy counts below zero weigh nothing. A rate without denominator comes back as fairlearn's 0;
    the caller says that it is undefined.
    Source: fairlearn 0.15, MetricFrame with `sample_params`.
    """
    from fairlearn.metrics import MetricFrame, false_positive_rate, selection_rate, true_positive_rate
    from sklearn.metrics import accuracy_score

    if not kept:
        return {"selection_rate": [], "true_positive_rate": [], "false_positive_rate": [], "accuracy": []}
    weights = np.maximum(tally.counts[list(kept)], 0.0)
    cell, label, predicted = (axis.ravel() for axis in np.indices(weights.shape))
    metrics = {
        "selection_rate": selection_rate,
        "true_positive_rate": true_positive_rate,
        "false_positive_rate": false_positive_rate,
        "accuracy": accuracy_score,
    }
    frame = MetricFrame(
        metrics=metrics,
        y_true=label,
        y_pred=predicted,
        sensitive_features=cell,
        sample_params={name: {"sample_weight": weights.ravel()} for name in metrics},
    )
    return {name: [float(value) for value in frame.by_group[name].sort_index()] for name in metrics}

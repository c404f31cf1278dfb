"""Counts of all sites as one table: what the fairness audit and the accuracy of a run rest on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.metrics import Counts
from common.secagg.codec import Sum
from common.work import Work, count_shape, counts_noise_sd


def evaluation_of(work: Work, opened: Sum, round_number: int, sites: Sequence[str]) -> dict[str, Any]:
    """The evaluation part of run.json: counts[group][label][bin] as they were opened, with their noise.

    noise_sd  standard deviation of the noise in each cell, from all sites of the sum together; 0: exact
    """
    shape = count_shape(work.job)
    counts = Counts.from_lanes(shape, opened.values[: shape.lanes])
    accuracy = counts.accuracy()
    return {
        "round": round_number,
        "groups": [attribute.name for attribute in work.job.data.sensitive],
        "cells": list(work.job.data.groups),
        "classes": shape.classes,
        "class_names": list(work.job.data.label.names),
        "bins": shape.bins,
        "threshold_bin": shape.bins // 2 if shape.classes == 2 else None,
        "counts": counts.table.tolist(),
        "noise_sd": counts_noise_sd(work, len(sites)),
        "sites": list(sites),
        "accuracy": None if accuracy is None else min(1.0, max(0.0, accuracy)),
    }

"""Rounds whose sites train with noise for single records: the site's own steps, by an engine that clips."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from client.private_step import EntropyOptimizer
from common.parameters import Flat, assign, flatten
from common.privacy.clipping.choice import ENGINES
from common.privacy.clipping.engine import ClipEngine
from common.randomness import SystemEntropy
from simulations.bench.privacy_steps import any_plan
from simulations.bench.simulate_works import RATE, Play, Population, Setting

PRIVATE: Mapping[str, Callable[[], ClipEngine]] = {
    name: lambda name=name: ENGINES[name](None)  # type: ignore[misc]  # a default binds the name
    for name in ("bk", "opacus")
}


def privately(engine: ClipEngine, setting: Setting, data: Population) -> Play:
    """Rounds as `client.private_step` trains: each record clipped to 1, noise of deviation 1 at each step.

    Batches are those of the bare loop and not drawn, so that the work is the same; what is measured claims nothing.
    """
    course = setting.course()
    model, losses = course.model, course.task.losses
    plan = any_plan(course.size)

    def play(parameters: Flat, sites: Sequence[int]) -> NDArray[np.float64]:
        whole = np.zeros(course.size)
        for site in sites:
            assign(model, parameters)
            optimizer = torch.optim.SGD(model.parameters(), RATE)
            private = EntropyOptimizer(optimizer, plan, float(setting.batch), SystemEntropy())
            for batch in setting.batches():
                rows = torch.from_numpy(batch)
                inputs, labels = data.inputs[site, rows], data.labels[site, rows]
                private.take(engine.clipped_sum(model, losses, inputs, labels, plan.clip).total)
            whole += flatten(model).astype(np.float64) - parameters
        return whole

    return play

"""The rounds of a run that protects whole sites, played again: with all sites or without one, with noise or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.data import Records
from common.parameters import Flat, flatten
from common.privacy.noise import integer_noise
from common.randomness import Entropy, ReplayEntropy
from common.secagg.rotation import Rotation
from common.work import Work
from server.site_level import central_noise, followed
from server.strategies.catalogue import strategy
from simulations.audits.site_updates import Lanes, Turn, bench_of, given

Rounds = Sequence[Sequence[tuple[int, ...]]]  # by round, the ids of the sites in each of its sums


@dataclass(frozen=True)
class SiteCourse:
    """How the attacked run went: its work, its rounds, and what every site trained on, by id.

    attempts  of each round that gave a sum, by site and round; 0 where nothing is said
    """

    work: Work
    rounds: Rounds
    records: Mapping[int, Records]
    attempts: Mapping[tuple[int, int], int]

    def played(self, without: Collection[int] = (), noise: int | None = None) -> list[Flat]:
        """The model before the first round and after each, float32 [d].

        without  sites that give zeros      noise  names the noise, and the same name gives the same; None: none
        Noise is drawn as the run drew it, by a stream that can be repeated.
        """
        work, bench = self.work, bench_of(self.work)
        chosen = strategy(work.job.aggregation.strategy, **work.job.aggregation.settings)
        parameters = flatten(bench.model)
        memory, models = chosen.step.init(parameters.size), [parameters]
        clip, past = work.training.clip, np.zeros((0, work.training.dimension))
        for number, parts in enumerate(self.rounds, 1):
            rows, within, count = [], 0.0, 0
            for group, sites in enumerate(parts):
                lanes = np.zeros(work.training.dimension)
                for site in sites:
                    turn = Turn(site, number, self.attempts.get((site, number), 0), clip * work.training.adaptive)
                    if site not in without:
                        lanes += given(bench, work, self.records[site], turn, parameters)
                if noise is not None:
                    more, past = self._noise((noise, number, group), sites, past)
                    lanes += more
                rows.append(clip * lanes[: parameters.size] / len(sites))
                within, count = within + float(lanes[parameters.size :].sum()), count + len(sites)
            memory, change = chosen.step.apply(memory, chosen.combine.apply(np.stack(rows)))
            parameters = (parameters.astype(np.float64) + change).astype(np.float32)
            models.append(parameters)
            clip = self._next(clip, within / count)
        return models

    def _noise(self, place: tuple[int, ...], sites: Sequence[int], past: Lanes) -> tuple[Lanes, Lanes]:
        """The noise of one sum: the coordinator's, or a share of every site."""
        plan = self.work.training
        if plan.central:
            return central_noise(plan, self._stream(*place), past)
        shares = [integer_noise(plan, self._stream(*place, site)) for site in sites]
        total = np.sum(shares, axis=0) / plan.scale
        return Rotation(plan.dimension).back(total, self.work.turn(place[1])) if plan.bits else total, past

    def _stream(self, *place: int) -> Entropy:
        return ReplayEntropy(self.work.job.seed, "audit", "site course", *place)

    def _next(self, clip: float, within: float) -> float:
        """The clip of the next round, as the coordinator moves it."""
        plan = self.work.training
        return followed(clip, 0.5 + within / (2 * plan.lane_bound), self.work) if plan.adaptive else clip

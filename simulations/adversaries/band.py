"""The lying sites of a world at work: what they hear, what they have learned, and what they send instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from common.data import Records
from common.errors import Code, Refusal
from common.randomness import child, child_numpy
from common.work import Work
from server.groups import grouped
from server.strategies.catalogue import strategy
from server.strategies.strategy import Flat64, Memory, Rows64
from simulations.adversaries.adaptive import Pipeline
from simulations.adversaries.catalogue import adaptive_on_updates, on_updates
from simulations.adversaries.form import Form
from simulations.adversaries.records import Poisoning
from simulations.adversaries.settings import Adversaries, OnUpdates
from simulations.adversaries.updates import NOTHING, Attack, View
from simulations.engines.engine import Engine, Turn
from simulations.engines.loop import LoopEngine
from simulations.engines.overheard import Overheard, Value
from simulations.engines.spoiled import Spoiled
from simulations.ground import Ground

Lies = Mapping[int, NDArray[np.int64] | None]  # integers of a report by site; None of a site that sends nothing


class Band:
    """All liars of a world together. They agree on what to send once it is known who is asked in an attempt.

    engine  what computes the world, spoiled records included
    Updates of all sites of a round lie side by side in memory where updates are attacked.
    """

    def __init__(self, work: Work, ground: Ground, engine: Engine, plan: Adversaries, seed: int):
        self.liars = plan.liars(len(ground), seed)
        self._work, self._plan, self._seed = work, plan, seed
        spoiled = engine
        if plan.records is not None:
            train = _spoiled(ground, plan.records.poisoning(work.job.data), seed)
            spoiled = Spoiled(engine, LoopEngine(work, ground, train=train), self.liars, plan.from_round)
        self._open, self._overheard = spoiled, Overheard(work, spoiled)
        self.engine: Engine = self._overheard
        self._memory: Memory = NOTHING
        self._place: tuple[int, int] | None = None
        self._lies: Lies = {}

    def conspire(self, turn: Turn, asked: Sequence[int], clip: float) -> None:
        """Decide what the liars among the sites that are asked send. clip: in force, where it adapts."""
        if self._place == turn.place and turn.task == "train":
            return
        self._place, self._lies = None, {}
        sites = sorted(asked)
        lying = [site for site in sites if site in self.liars]
        attack = self._plan.updates
        if attack is None or turn.task != "train" or turn.round < self._plan.from_round or not lying:
            return
        self._place, form = turn.place, Form(self._work, clip)
        heard = self._overheard.listen(turn, sites)
        own = self._own(turn, lying, heard)
        others = [site for site in sites if site not in self.liars]
        rows = {site: row for site in others if (row := form.honest(heard[site], site)) is not None}
        mine = np.stack([_usable(form.own(own[site], site), self._work) for site in lying])
        known = np.stack(list(rows.values())) if rows and attack.knows == "honest" else mine
        draws = child_numpy(self._seed, "lies", *turn.place)
        view = View(known, mine, self._memory, draws, others=len(others))
        chosen = _attack(attack, pipeline(form, turn, sites, [*rows, *lying]))
        sent, self._memory = chosen.lies(view), chosen.learn(view)
        self._lies = {site: form.integers(lie, site, own[site], turn) for site, lie in zip(lying, sent, strict=True)}

    def lies(self, site: int, place: tuple[int, int]) -> bool:
        """Whether the site lies about its update in the attempt that was last conspired about."""
        return self._place == place and site in self._lies

    def sent(self, site: int) -> NDArray[np.int64]:
        """The integers of its report. Errors: Refusal UPDATE_INVALID where it has none to send."""
        integers = self._lies[site]
        if integers is None:
            why = "what is no number has no integer"
            raise Refusal(Code.UPDATE_INVALID, f"Report of site {site} not sent", why, "Send numbers")
        return integers

    def _own(self, turn: Turn, lying: Sequence[int], heard: Mapping[int, Value]) -> Mapping[int, Value]:
        """What liars have computed for themselves: without the noise of local steps, where the job asks for it."""
        noisy = self._work.local is not None or self._work.training.mode == "M1"
        return dict(self._open.updates(turn, lying)) if noisy else heard


def pipeline(form: Form, turn: Turn, asked: Sequence[int], sites: Sequence[int]) -> Pipeline:
    """What the coordinator makes of these sites' updates, rows in the order of `sites`: groups, sums, the job's rule.

    asked  all sites of the attempt, from which its groups follow as the job says
    A sum that cannot be opened has no vote. A rule that starts from the last combined update is taken to start from
    zero.
    """
    work, weights = form.work, np.array([form.weight(site) for site in sites])
    rule, position = work.job.aggregation, {site: place for place, site in enumerate(sites)}
    combine = strategy(rule.strategy, **rule.settings).combine

    def apply(rows: Rows64) -> Flat64:
        draw = child(work.job.seed, "groups", turn.round, turn.attempt)
        groups = grouped(asked, work.groups("train"), fits=lambda group: len(group) >= rule.quorum, draw=draw)
        places = [[position[site] for site in group if site in position] for group in groups]
        totals = [weights[group] @ rows[group] for group in places]
        means = [
            total / weights[group].sum()
            for total, group in zip(totals, places, strict=True)
            if len(group) >= rule.quorum and np.abs(total).max() <= len(group) * form.most
        ]
        if len(means) < combine.least:
            raise Refusal(Code.E_TOO_FEW, "No update", "too few sums can be opened", "Lie less")
        return combine.apply(np.stack(means))

    return apply


def _attack(asked: OnUpdates, through: Pipeline) -> Attack:
    if asked.adaptive:
        return adaptive_on_updates(asked.attack, through, **asked.settings)
    return on_updates(asked.attack, **asked.settings)


def _usable(row: Flat64 | None, work: Work) -> Flat64:
    """A liar's own update; nothing where its training diverged."""
    return row if row is not None and np.isfinite(row).all() else np.zeros(work.layout.size)


def _spoiled(ground: Ground, poisoning: Poisoning, seed: int) -> Callable[[int], Records]:
    """What a site with spoiled records trains on, by id."""

    @cache
    def train(site: int) -> Records:
        return poisoning.poison(ground.train(site), int(child_numpy(seed, "spoiled", site).integers(2**53)))

    return train

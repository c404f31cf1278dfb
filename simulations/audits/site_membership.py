"""Can an adversary tell which sites took part? The released model beside those of the same rounds without one site."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import Code, Refusal
from common.parameters import Flat, assign
from common.randomness import child_numpy
from common.work import Work, model_of
from simulations.audits.attack_curves import Scores
from simulations.audits.gradients import losses_of
from simulations.audits.intervals import Interval
from simulations.audits.lower_bounds import clopper_pearson
from simulations.audits.models import flat_of
from simulations.audits.runs import Run
from simulations.audits.site_courses import SiteCourse
from simulations.audits.site_updates import attempts_of, rounds_of
from simulations.rebuilt import SiteRecords, rebuilt

FEWEST = 4  # sites, below which no interval says anything
METHOD = (
    "Pairs of models are compared: one of the run's rounds with a site in them, the other of the same rounds without "
    "it, each with fresh noise of the same mechanism; the first model of the first pair is the one that the run "
    "released. The attacker knows the records of every site and what the rounds give without noise, with the site and "
    "without it, and must say which model is which. Pairs are independent of each other, so intervals are exact "
    "(Clopper and Pearson), at 95 % over all figures together, compared with the most that the claimed epsilon of a "
    "site allows any attack: PASS if the whole interval lies within, FAIL if it lies beyond. That an attack finds "
    "little is no evidence of privacy."
)


@dataclass(frozen=True)
class Known:
    """What an attacker knows before it sees a model.

    sites       whom it attacks
    everybody   the model of the rounds without noise, float32 [d]
    without     the same, each site left out in turn, [sites][d]
    """

    sites: Sequence[SiteRecords]
    everybody: Flat
    without: Sequence[Flat]


def attacked(run: Run, work: Work, shadows: int, step: Callable[[int], object]) -> dict[str, tuple[Scores, Scores]]:
    """Scores of members and of others by attack, pair by pair: larger where the site seems to have taken part.

    shadows  models to train: one for each attacked site, a third of them or all if they are fewer, and two a pair
    Errors: Refusal DATA_INVALID for a run of too few sites.
    """
    sites = {site.name: site for site in rebuilt(run.facts)}
    ids = {entry.name: entry.id for entry in work.manifest.sites}
    attempts = {(ids[name], number): one for (name, number), one in attempts_of(run).items() if name in ids}
    course = SiteCourse(work, rounds_of(run, work), {ids[name]: site.train for name, site in sites.items()}, attempts)
    chosen = _chosen(run, work, sites, shadows // 3)
    without = [course.played([ids[site.name]])[-1] for site in chosen]
    step(len(chosen))
    known = Known(chosen, course.played()[-1], without)
    pairs, released = max(FEWEST, (shadows - len(chosen)) // 2), flat_of(run.model or b"", work.layout)
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in ATTACKS}
    for pair in range(pairs):
        place = pair % len(chosen)
        inside = course.played(noise=2 * pair)[-1] if pair else released
        outside = course.played([ids[chosen[place].name]], noise=2 * pair + 1)[-1]
        for name, attack in ATTACKS.items():
            told = [attack(work, known, model)[place] for model in (inside, outside)]
            scores[name].append((float(told[0]), float(told[1])))
        step(2)
    return {name: (np.array(found)[:, 0], np.array(found)[:, 1]) for name, found in scores.items()}


def paired(members: Scores, others: Scores, level: float) -> Interval:
    """The share of pairs that were told apart rightly, with its exact interval: what an area under a curve is."""
    right = int((members > others).sum())
    low, high = clopper_pearson(right, members.size, level)
    return Interval(right / members.size, low, high)


def _chosen(run: Run, work: Work, sites: Mapping[str, SiteRecords], count: int) -> list[SiteRecords]:
    """The attacked sites, by the job's seed: of those that took part, and that trained on something of their own."""
    took = {name for row in run.rounds for name in row["sites"]}
    able = [site for name, site in sites.items() if name in took and len(site.train) and not len(site.canaries)]
    order = child_numpy(work.job.seed, "audit", "attacked sites").permutation(len(able))[: max(count, FEWEST)]
    if len(order) < FEWEST:
        why = f"only {len(able)} sites took part, and fewer than {FEWEST} show nothing"
        raise Refusal(Code.DATA_INVALID, f"{run.folder} not attacked", why, "Attack a run of more sites")
    return [able[place] for place in sorted(order)]


def _by_loss(work: Work, known: Known, model: Flat) -> Scores:
    """A site took part if the loss on its records is that of rounds with it, apart from what all sites share."""
    told, inside = _told(work, known, model), _told(work, known, known.everybody)
    outside = np.array([_told(work, known, one)[i] for i, one in enumerate(known.without)])
    moved = told - inside
    return _likelier(moved - moved.mean(), inside - outside)


def _told(work: Work, known: Known, parameters: Flat) -> Scores:
    """Minus the mean loss on each site's records."""
    model, losses = model_of(work.job), work.job.training.task(work.job.data.classes).losses
    assign(model, parameters)
    return np.array([-losses_of(model, losses, site.train).mean() for site in known.sites])


def _by_position(_: Work, known: Known, model: Flat) -> Scores:
    """A site took part if the model lies where the rounds with it lead, on its own axis.

    Axes are those nearest to the directions in which single sites move the model that are at right angles to each
    other (Löwdin 1950), so that noise of the same size everywhere hides each site by itself.
    """
    ways = known.everybody.astype(np.float64) - np.stack(known.without)
    axes = _upright(ways)
    return _likelier(axes @ (model.astype(np.float64) - known.everybody), np.einsum("ij,ij->i", axes, ways))


def _upright(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    left, _, right = np.linalg.svd(rows, full_matrices=False)
    found: NDArray[np.float64] = left @ right
    return found


def _likelier(seen: Scores, apart: Scores) -> Scores:
    """Log-likelihood ratio, up to a factor, of a normal number around 0 with the site, around -`apart` without."""
    scores: Scores = (seen + apart / 2) * apart
    return scores


ATTACKS: Mapping[str, Callable[[Work, Known, Flat], Scores]] = {"site_loss": _by_loss, "site_position": _by_position}

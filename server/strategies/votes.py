"""The strategies that vote over sums of groups, by name: a rule, what comes before it, and plain descent."""

from __future__ import annotations

from dataclasses import dataclass, fields

from common.catalogue import Catalogue, Entry, catalogue
from common.config import finite, one_of
from common.errors import Code, Refusal
from server.strategies.central import GEOMETRIC_MEDIAN, bounded_mean, centred_clipping
from server.strategies.coordinatewise import MEAN_AROUND_MEDIAN, MEDIAN, TRIMMED_MEAN
from server.strategies.filtering import FILTERED
from server.strategies.preaggregation import MIXING, SHORTENING
from server.strategies.selection import BULYAN, KRUM, LEAST_DIAMETER, MULTI_KRUM
from server.strategies.steps import descend
from server.strategies.strategy import Strategy, same
from server.strategies.voting import Rule, Stage, vote

STAGES: Catalogue[Stage] = {**SHORTENING, **MIXING}


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """liars: lying sites to count on; no default, for it is the promise.  bound: largest length of a row, in model
    units.  rate: how far the model follows.
    """

    liars: int
    bound: float
    rate: float = 1.0

    def __post_init__(self) -> None:
        finite(self.liars, "liars", above=0)
        finite(self.bound, "bound", above=0.0)
        finite(self.rate, "rate", above=0.0)


@dataclass(frozen=True, kw_only=True)
class Voted:
    """liars: lying sites to outvote; no default, for it is the promise.  rate: how far the model follows.

    pre           what comes before the rule: one of "clip", "arc", then one of "nnm", "bucketing"
    clip, bucket  settings of those two, there exactly where they are
    """

    liars: int
    rate: float = 1.0
    pre: tuple[str, ...] = ()
    clip: float | None = None
    bucket: int | None = None

    def __post_init__(self) -> None:
        finite(self.liars, "liars", above=0)
        finite(self.rate, "rate", above=0.0)
        self.stages()

    def stages(self) -> list[Stage]:
        """What comes before the rule, in order. Errors: Refusal CONFIG_INVALID for what does not go together."""
        for name in self.pre:
            one_of(name, "pre", STAGES.keys())
        shortening, mixing = ([name for name in self.pre if name in kind] for kind in (SHORTENING, MIXING))
        if len(shortening) > 1 or len(mixing) > 1 or [*shortening, *mixing] != list(self.pre):
            why = f"at most one of {', '.join(SHORTENING)} comes first, and at most one of {', '.join(MIXING)} after it"
            raise Refusal(Code.CONFIG_INVALID, f"pre = {list(self.pre)}", why, "Leave one out, or change their order")
        given = {name: getattr(self, name) for name in ("clip", "bucket") if getattr(self, name) is not None}
        used = {name: {f.name for f in fields(STAGES[name].settings)} for name in self.pre}
        for name in given.keys() - set().union(*used.values()):
            why = f"nothing in pre = {list(self.pre)} uses it"
            raise Refusal(Code.CONFIG_INVALID, f"{name} = {given[name]}", why, "Remove it, or name its stage in `pre`")
        read = {name: {key: value for key, value in given.items() if key in used[name]} for name in self.pre}
        return [STAGES[name].make(STAGES[name].read(settings)) for name, settings in read.items()]


@dataclass(frozen=True, kw_only=True)
class Centred(Voted):
    """As of every vote; and radius: how far a row may pull, in model units.  steps: how often in a round."""

    radius: float
    steps: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        finite(self.radius, "radius", above=0.0)
        finite(self.steps, "steps", above=0, at_most=100)


def _entry(name: str, rule: Rule, summary: str, paper: str) -> Entry[Strategy]:
    return Entry(name=name, summary=summary, paper=paper, settings=Voted, make=lambda s: _voted(rule, s))


def _voted(rule: Rule, settings: Voted) -> Strategy:
    return Strategy(same, vote(rule, settings.liars, settings.stages()), descend(settings.rate))


VOTES: Catalogue[Strategy] = catalogue(
    _entry(
        "median",
        MEDIAN,
        "coordinate-wise median over the mean updates of random groups of sites",
        "Yin et al. 2018; Karimireddy et al. 2022",
    ),
    _entry(
        "trimmed-mean",
        TRIMMED_MEAN,
        "coordinate-wise mean over groups of sites without the extreme ones",
        "Yin et al. 2018; Karimireddy et al. 2022",
    ),
    _entry(
        "meamed",
        MEAN_AROUND_MEDIAN,
        "coordinate-wise mean over the groups that are nearest to the median (mean around median)",
        "Xie et al. 2018",
    ),
    _entry("krum", KRUM, "the group that is nearest to its nearest others", "Blanchard et al. 2017"),
    _entry("multi-krum", MULTI_KRUM, "mean of the groups with the best of Krum's scores", "Blanchard et al. 2017"),
    _entry("bulyan", BULYAN, "mean around the median of groups that Krum chose", "El Mhamdi et al. 2018"),
    _entry(
        "geometric-median",
        GEOMETRIC_MEDIAN,
        "the point with the smallest sum of distances to all groups",
        "Pillutla et al. 2022",
    ),
    Entry(
        name="centered-clipping",
        summary="from the last update by the mean of what groups differ, each cut to a radius",
        paper="Karimireddy et al. 2021",
        settings=Centred,
        make=lambda s: _voted(centred_clipping(s.radius, s.steps), s),
    ),
    _entry(
        "mda",
        LEAST_DIAMETER,
        "mean of the groups of minimum diameter; 20 groups at most",
        "El Mhamdi et al. 2020",
    ),
    _entry(
        "caf",
        FILTERED,
        "mean with weights that take out directions of large variance",
        "Allouah et al. 2025 (CafCor)",
    ),
    Entry(
        name="norm-bound",
        summary="mean over groups cut to a length: bounds what lies do, outvotes nobody",
        paper="Sun et al. 2019",
        settings=Bounded,
        make=lambda s: Strategy(same, vote(bounded_mean(s.bound), s.liars), descend(s.rate)),
    ),
)

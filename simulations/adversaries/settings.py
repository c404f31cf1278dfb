"""The table [world.adversaries]: who lies in a simulated world, since when, and about what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from common.catalogue import find
from common.config import finite, one_of
from common.data import Schema
from common.errors import Code, Refusal
from common.randomness import child_numpy
from simulations.adversaries.catalogue import ON_RECORDS, ON_UPDATES, STRENGTHS, on_records
from simulations.adversaries.records import Poisoning


@dataclass(frozen=True, kw_only=True)
class OnRecords:
    """The table [world.adversaries.records]: an attack on records (`hushfed adversaries list`), with its settings.

    A site with spoiled records runs the software that everybody runs, as one would whose records somebody else has
    spoiled: it clips and adds noise as it is told.
    """

    attack: str
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        find(ON_RECORDS, self.attack, "attack on records").read(self.settings)

    def poisoning(self, schema: Schema) -> Poisoning:
        """The attack on records of this schema. Errors: Refusal CONFIG_INVALID where it does not fit them."""
        entry = find(ON_RECORDS, self.attack, "attack on records")
        if entry.input == "image" and schema.image is None:
            why = "it changes images, and these records are none"
            raise _invalid(f"world.adversaries.records.attack = {self.attack!r}", why, "Choose another attack")
        return on_records(self.attack, schema, **self.settings)


@dataclass(frozen=True, kw_only=True)
class OnUpdates:
    """The table [world.adversaries.updates]: an attack on updates (`hushfed adversaries list`), with its settings.

    knows     "honest": every update that honest sites report in the round, the most that can be granted; "own": only
              those that the liars have computed themselves, from which they guess the others'
    adaptive  the strength is searched in each round, as the one that does most harm to the job's own rule over the
              round's groups; then `settings` has none
    A site that lies about its update runs software of its own: it neither clips nor adds noise.
    """

    attack: str
    knows: Literal["honest", "own"]
    adaptive: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entry = find(ON_UPDATES, self.attack, "attack on updates")
        settings = self.settings
        if self.adaptive:
            one_of(self.attack, "adaptive attack", STRENGTHS.keys())
            strength, search = STRENGTHS[self.attack]
            if strength in settings:
                why = "the strength of an adaptive attack is searched"
                raise _invalid(f"{self.attack} with {strength} = {settings[strength]}", why, "Remove it")
            if self.knows != "honest":
                why = "it tries its lies on the rule, for which it must know what the others send"
                raise _invalid('An adaptive attack that knows "own"', why, 'Write knows = "honest"')
            settings = {**settings, strength: search.low}
        entry.read(settings)


@dataclass(frozen=True, kw_only=True)
class Adversaries:
    """Lying sites, chosen by `world.seed`: with one seed, fewer of them are some of more.

    sites, share      how many, or which share of all sites; one of the two
    from_round        the first round in which they lie
    records, updates  what they do: to the records that they train on, to the updates that they report, or to both
    What they count for evaluation is true, so that the record of a run tells of its model.
    """

    from_round: int
    sites: int | None = None
    share: float | None = None
    records: OnRecords | None = None
    updates: OnUpdates | None = None

    def __post_init__(self) -> None:
        finite(self.from_round, "world.adversaries.from_round", above=0)
        if (self.sites is None) == (self.share is None):
            why = "one of `sites` and `share` says how many lie"
            raise _invalid("[world.adversaries]", why, "Give one of them")
        if self.sites is not None:
            finite(self.sites, "world.adversaries.sites", above=0)
        if self.share is not None:
            finite(self.share, "world.adversaries.share", above=0.0, below=1.0)
        if self.records is None and self.updates is None:
            why = "without a table `records` or `updates` nobody lies"
            raise _invalid("[world.adversaries]", why, "Give one of them, or both")

    def liars(self, sites: int, seed: int) -> frozenset[int]:
        """Ids of those that lie among the sites 1 to `sites`; at least one.

        Errors: Refusal CONFIG_INVALID where nobody would be honest.
        """
        count = max(1, round((self.share or 0.0) * sites)) if self.sites is None else self.sites
        if count >= sites:
            why = f"the world has {sites} sites, and somebody must be honest"
            raise _invalid(f"{count} lying sites", why, "Let fewer lie")
        order = child_numpy(seed, "adversaries").permutation(sites)
        return frozenset(int(place) + 1 for place in order[:count])


def _invalid(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.CONFIG_INVALID, what, why, do)

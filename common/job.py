"""What a federation is asked to do: one frozen value that coordinator and sites read from the same bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from common.config import canonical, finite, load
from common.data import Schema
from common.errors import Code, Refusal
from common.learning.plan import TrainingPlan
from common.privacy.plan import PrivacySettings

Setting = bool | int | float | str | tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """A model of the catalogue by name, and its settings (checked when it is built)."""

    name: str
    settings: dict[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class AggregationSettings:
    """How many answers a round needs, and how their sum is formed.

    quorum            fewest reports that are summed; of each group, where there are several
    cohort            sites that a round asks, drawn by the job's seed from those that are here; left out, all of them
    site_rate         the chance of every site to be asked in a round (Poisson sampling); instead of `cohort`
    groups            random parts of the cohort with a secure sum each, for strategies that outvote lying sites;
                      the coordinator then sees sums over fewer sites
    deadline_seconds  a round closes then, whoever is missing
    protocol          "alm": some sites unmask, two round trips; "bonawitz": all sites hold shares for their
                      neighbours, five round trips, and any site may be lost at any time
    session_rounds    aggregations that one enrolment of unmasking sites serves
    bits, bound       ring and largest coordinate of an update in range mode (mode M1 and "none"). In M4 bits alone, and
                      with `privacy.mechanism`: fewer of them make reports smaller and the noise somewhat larger
    """

    strategy: str
    settings: dict[str, Setting] = field(default_factory=dict)
    quorum: int
    deadline_seconds: float
    protocol: Literal["alm", "bonawitz"] = "alm"
    session_rounds: int = 64
    cohort: int | None = None
    site_rate: float | None = None
    groups: int = 1
    bits: Literal[16, 20, 24, 28, 32] | None = None
    bound: float | None = None

    def __post_init__(self) -> None:
        finite(self.quorum, "aggregation.quorum", at_least=2, at_most=2**13)  # most sites of a manifest
        finite(self.session_rounds, "aggregation.session_rounds", above=0, at_most=1024)
        finite(self.groups, "aggregation.groups", above=0, at_most=64)
        finite(self.deadline_seconds, "aggregation.deadline_seconds", above=0, at_most=86400)
        if self.bound is not None:
            finite(self.bound, "aggregation.bound", above=0)
        if self.site_rate is not None:
            finite(self.site_rate, "aggregation.site_rate", above=0, at_most=1)
        if self.cohort is not None:
            finite(self.cohort, "aggregation.cohort", at_least=self.quorum * self.groups, at_most=2**20)
        if self.cohort is not None and self.site_rate is not None:
            why = "they are two ways to draw the sites of a round"
            raise Refusal(Code.CONFIG_INVALID, "aggregation.cohort and aggregation.site_rate", why, "Give one of them")


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Counts by group over held-out records: `releases` of them are budgeted, the last after the last round.

    bins  score bins of a binary task (2: predicted or not); classes count as their own bins otherwise
    """

    bins: int
    releases: int

    def __post_init__(self) -> None:
        finite(self.bins, "evaluation.bins", at_least=2, at_most=64)
        finite(self.releases, "evaluation.releases", above=0, at_most=1000)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training run of a federation.

    seed     fixes public choices only (initial weights, cohorts), never noise
    dataset  name of the data set that every site holds under the schema `data`
    """

    name: str
    seed: int
    rounds: int
    dataset: str
    data: Schema
    model: ModelSettings
    training: TrainingPlan
    privacy: PrivacySettings
    aggregation: AggregationSettings
    evaluation: EvaluationSettings

    def __post_init__(self) -> None:
        finite(self.rounds, "rounds", above=0, at_most=100_000)
        finite(self.seed, "seed", at_least=0, at_most=2**53)
        if not self.name or not self.name.replace("-", "").replace("_", "").isalnum():
            raise Refusal(
                Code.CONFIG_INVALID, f"name = {self.name!r}", "it takes letters, digits, - and _", "Rename the job"
            )

    @property
    def evaluation_rounds(self) -> frozenset[int]:
        """The rounds after which counts are released: evenly spread, the last one always."""
        count = min(self.evaluation.releases, self.rounds)
        return frozenset(round(self.rounds * (i + 1) / count) for i in range(count))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column of a site's data that the job reads."""
        image = self.data.image
        inputs = [f"{image.prefix}*"] if image else [feature.name for feature in self.data.features]
        sensitive = [attribute.source for attribute in self.data.sensitive]
        return tuple(dict.fromkeys([*inputs, self.data.label.column, *sensitive]))

    def to_bytes(self) -> bytes:
        """The canonical bytes that every order carries."""
        return self._bytes

    def digest(self) -> bytes:
        """SHA-256 of the canonical bytes."""
        return self._digest

    @cached_property
    def _bytes(self) -> bytes:
        return canonical(self)

    @cached_property
    def _digest(self) -> bytes:
        return hashlib.sha256(self._bytes).digest()


def job_from_bytes(data: bytes) -> Job:
    """The job of an order. Errors: Refusal CONFIG_INVALID, also for bytes that are not canonical."""
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):
        raise Refusal(Code.CONFIG_INVALID, "Job not read", "it is not JSON", "Update the coordinator") from None
    job = load(Job, table)
    if job.to_bytes() != data:
        raise Refusal(Code.CONFIG_INVALID, "Job not read", "it is not canonical", "Update the coordinator")
    return job

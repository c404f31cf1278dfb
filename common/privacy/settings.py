"""The table [privacy] of a job: what is asked for, with no silent default that could weaken it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.config import finite
from common.errors import Code, Refusal
from common.randomness import NoiseKind

Mode = Literal["M1", "M2", "none"]

_ASKED: dict[Mode, frozenset[str]] = {  # what each mode needs; metric_share > 0 needs loss_bound on top
    "none": frozenset(),
    "M1": frozenset({"unit", "epsilon", "delta", "clip", "sampling_rate", "spare_rounds", "evaluation_epsilon"}),
    "M2": frozenset(
        {"unit", "epsilon", "delta", "clip", "sampling_rate", "spare_rounds", "evaluation_epsilon"}
        | {"colluding", "metric_share"}
    ),
}
_ALL = _ASKED["M2"] | {"loss_bound"}


@dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """What a job promises about one record of a site. A setting that its mode does not use is refused.

    mode                "M1": every site trains with noise of its own (DP-SGD); "M2": the noise of several sites adds
                        up inside secure aggregation (one gradient a round); "none": no noise, no claim
    epsilon, delta      of all training releases together, for one record of one site
    clip                L2 bound of one record's gradient, in model units
    sampling_rate       chance of each record to enter a step
    spare_rounds        releases beyond the job's rounds that the budget still affords, for repeated rounds
    colluding           M2: sites whose noise does not count, because they may tell theirs to the server
    metric_share        M2: bound of the live loss and accuracy lanes over `clip`; 0 sends neither
    loss_bound          losses above it count as it; needed where metric_share > 0
    evaluation_epsilon  of all counts over held-out records, which are other records than those trained on
    noise               "replay" repeats its noise bit for bit and voids every claim
    """

    mode: Mode
    unit: Literal["record"] | None = None
    epsilon: float | None = None
    delta: float | None = None
    clip: float | None = None
    sampling_rate: float | None = None
    spare_rounds: int | None = None
    colluding: int | None = None
    metric_share: float | None = None
    loss_bound: float | None = None
    evaluation_epsilon: float | None = None
    noise: NoiseKind = "system"  # the only kind under which a guarantee holds

    def __post_init__(self) -> None:
        if self.mode not in _ASKED:
            raise _refused(f"privacy.mode = {self.mode!r}", "it knows M1, M2 and none", "Correct the name")
        wanted = _ASKED[self.mode] | ({"loss_bound"} if self.metric_share else frozenset())
        given = {name for name in _ALL if getattr(self, name) is not None}
        if missing := sorted(_ASKED[self.mode] - given):
            raise _refused(f"privacy.{missing[0]} is missing", f"mode {self.mode} needs it", "Choose a value")
        if unused := sorted(given - wanted):
            raise _refused(
                f"privacy.{unused[0]} is set", f"nothing in mode {self.mode} would use it", "Remove the line"
            )
        if missing := sorted(wanted - given):
            raise _refused(f"privacy.{missing[0]} is missing", "live metrics need it", "Choose a value")
        self._refuse_ranges()

    def _refuse_ranges(self) -> None:
        for name in ("epsilon", "evaluation_epsilon"):
            _within(getattr(self, name), name, above=0, at_most=1000)
        _within(self.delta, "delta", above=0, at_most=0.01)
        _within(self.clip, "clip", above=0, at_most=1e6)
        _within(self.sampling_rate, "sampling_rate", above=0, at_most=1)
        _within(self.loss_bound, "loss_bound", above=0, at_most=1e6)
        for name in ("spare_rounds", "colluding"):
            _within(getattr(self, name), name, at_least=0, at_most=100_000)
        if self.metric_share:
            _within(self.metric_share, "metric_share", above=0, at_most=1)

    @property
    def private(self) -> bool:
        """Whether noise is added at all."""
        return self.mode != "none"


def _within(value: float | None, name: str, **ends: float) -> None:
    if value is not None:
        finite(value, f"privacy.{name}", **ends)


def _refused(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.CONFIG_INVALID, what, why, do)

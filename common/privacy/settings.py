"""The table [privacy] of a job: what is asked for, with no silent default that could weaken it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.config import finite
from common.errors import Code, Refusal
from common.randomness import NoiseKind
from common.secagg.distributed import IntegerNoise

Mode = Literal["M1", "M2", "M3", "M4", "M5", "none"]
SITE_LEVEL: frozenset[Mode] = frozenset({"M3", "M4", "M5"})

_EACH = frozenset({"unit", "epsilon", "delta", "clip", "spare_rounds", "evaluation_epsilon"})
_ASKED: dict[Mode, frozenset[str]] = {  # what each mode needs; metric_share > 0 needs loss_bound on top
    "none": frozenset(),
    "M1": _EACH | {"sampling_rate"},
    "M2": _EACH | {"sampling_rate", "colluding", "metric_share"},
    "M3": _EACH,
    "M4": _EACH | {"colluding"},
    "M5": _EACH | {"separation"},
}
_MAY: dict[Mode, frozenset[str]] = dict.fromkeys(SITE_LEVEL, frozenset({"quantile", "local"}))
_MAY["M4"] |= {"mechanism"}
_ALL = frozenset().union(*_ASKED.values(), *_MAY.values()) | {"loss_bound"}


@dataclass(frozen=True, kw_only=True)
class LocalPrivacy:
    """The table [privacy.local]: noise for single records inside a mode whose unit is the site; meanings as in M1.

    It is a second promise with a unit of its own, at the same delta. The two are never added.
    """

    epsilon: float
    clip: float
    sampling_rate: float

    def __post_init__(self) -> None:
        _refuse_ranges(self, "privacy.local")


@dataclass(frozen=True, kw_only=True)
class PrivacySettings:
    """What a job promises about one record of a site, or about all of a site. What its mode does not use is refused.

    mode                "M1": every site trains with noise of its own (DP-SGD); "M2": the noise of several sites adds
                        up inside secure aggregation (one gradient a round); "none": no noise, no claim.
                        For a whole site: "M3": the coordinator adds noise to each sum of updates; "M4": the noise
                        of several sites adds up inside the sum; "M5": as M3, with noise that cancels over rounds,
                        for sites that take turns
    unit                "record" in M1 and M2, "site" in M3 to M5: what one epsilon protects
    epsilon, delta      of all training releases together, for one unit
    clip                L2 bound of one record's gradient, or of a site's update, in model units
    sampling_rate       chance of each record to enter a step
    spare_rounds        releases beyond the job's rounds that the budget still affords, for repeated rounds
    colluding           M2, M4: sites whose noise does not count, because they may tell theirs to the server
    separation          M5: rounds from one turn of a site to its next, at least; sites hold the coordinator to it
    quantile            M3 to M5: the clip follows this share of the updates' norms; not given: the clip is fixed
    local               M3 to M5: noise for single records besides
    mechanism           M4: what each site's noise is drawn from where `aggregation.bits` names a ring: vectors are then
                        rotated and rounded at random, and a lane in 16 000 may wrap. "discrete-gaussian" (Kairouz, Liu
                        and Steinke 2021) or "skellam" (Agarwal, Kairouz and Liu 2021)
    metric_share        M2: bound of the live loss and accuracy lanes over `clip`; 0 sends neither
    loss_bound          losses above it count as it; needed where metric_share > 0
    evaluation_epsilon  of all counts over held-out records, which are other records than those trained on
    noise               "replay" repeats its noise bit for bit and voids every claim
    """

    mode: Mode
    unit: Literal["record", "site"] | None = None
    epsilon: float | None = None
    delta: float | None = None
    clip: float | None = None
    sampling_rate: float | None = None
    spare_rounds: int | None = None
    colluding: int | None = None
    separation: int | None = None
    quantile: float | None = None
    local: LocalPrivacy | None = None
    mechanism: IntegerNoise | None = None
    metric_share: float | None = None
    loss_bound: float | None = None
    evaluation_epsilon: float | None = None
    noise: NoiseKind = "system"  # the only kind under which a guarantee holds

    def __post_init__(self) -> None:
        if self.mode not in _ASKED:
            raise _refused(f"privacy.mode = {self.mode!r}", "it knows M1 to M5 and none", "Correct the name")
        wanted = _ASKED[self.mode] | ({"loss_bound"} if self.metric_share else frozenset())
        given = {name for name in _ALL if getattr(self, name) is not None}
        if missing := sorted(_ASKED[self.mode] - given):
            raise _refused(f"privacy.{missing[0]} is missing", f"mode {self.mode} needs it", "Choose a value")
        if unused := sorted(given - wanted - _MAY.get(self.mode, frozenset())):
            raise _refused(
                f"privacy.{unused[0]} is set", f"nothing in mode {self.mode} would use it", "Remove the line"
            )
        if missing := sorted(wanted - given):
            raise _refused(f"privacy.{missing[0]} is missing", "live metrics need it", "Choose a value")
        unit = "site" if self.by_site else "record"
        if self.private and self.unit != unit:
            why = f"one epsilon of mode {self.mode} protects one {unit}"
            raise _refused(f"privacy.unit = {self.unit!r}", why, f'Set unit = "{unit}", or choose another mode')
        _refuse_ranges(self, "privacy")

    @property
    def private(self) -> bool:
        """Whether noise is added at all."""
        return self.mode != "none"

    @property
    def central(self) -> bool:
        """Whether the coordinator adds the noise."""
        return self.by_site and not self.together

    @property
    def epsilons(self) -> tuple[float, ...]:
        """Every epsilon that is promised, of whatever unit."""
        inner = self.local.epsilon if self.local else None
        return tuple(value for value in (self.epsilon, self.evaluation_epsilon, inner) if value is not None)

    @property
    def by_site(self) -> bool:
        """Whether one epsilon protects a whole site."""
        return self.mode in SITE_LEVEL

    @property
    def by_record(self) -> bool:
        """Whether single records are clipped."""
        return self.mode in ("M1", "M2") or self.local is not None

    @property
    def together(self) -> bool:
        """Whether the noise of several sites adds up to what is promised."""
        return self.mode in ("M2", "M4")


_ENDS: dict[str, dict[str, float]] = {
    "epsilon": {"above": 0, "at_most": 1000},
    "evaluation_epsilon": {"above": 0, "at_most": 1000},
    "delta": {"above": 0, "at_most": 0.01},
    "clip": {"above": 0, "at_most": 1e6},
    "sampling_rate": {"above": 0, "at_most": 1},
    "loss_bound": {"above": 0, "at_most": 1e6},
    "spare_rounds": {"at_least": 0, "at_most": 100_000},
    "colluding": {"at_least": 0, "at_most": 100_000},
    "metric_share": {"at_least": 0, "at_most": 1},
    "separation": {"at_least": 2, "at_most": 1024},
    "quantile": {"above": 0, "below": 1},
}


def _refuse_ranges(settings: PrivacySettings | LocalPrivacy, table: str) -> None:
    for name, ends in _ENDS.items():
        value = getattr(settings, name, None)
        if value is not None:
            finite(value, f"{table}.{name}", **ends)


def _refused(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.CONFIG_INVALID, what, why, do)

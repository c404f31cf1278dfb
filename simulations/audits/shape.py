"""The form that the files of a run have; what has another one is refused before anything is computed from it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from common.errors import Code, Refusal

Population = Annotated[int, msgspec.Meta(ge=1, le=2**40)]  # sites of a world without a manifest


@dataclass(frozen=True, kw_only=True)
class _Privacy:
    mode: str | None = None
    unit: str | None = None
    epsilon: float | None = None
    delta: float | None = None
    evaluation_epsilon: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Model:
    name: str


@dataclass(frozen=True, kw_only=True)
class _Aggregation:
    groups: int = 1
    cohort: int | None = None
    strategy: str = ""
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Job:
    name: str
    model: _Model
    privacy: _Privacy
    aggregation: _Aggregation = field(default_factory=_Aggregation)


@dataclass(frozen=True, kw_only=True)
class _Site:
    name: str
    identity: Any
    id: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    sites: list[_Site]


@dataclass(frozen=True, kw_only=True)
class _Head:
    """`epsilon` may be anything: the audit finds what is no number."""

    head: str | None = None
    epsilon: Any = None


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    round: int
    sites: list[str]
    cells: list[str]


@dataclass(frozen=True, kw_only=True)
class _Baselines:
    alone: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class _Refused:
    site: str
    code: str


@dataclass(frozen=True, kw_only=True)
class _Canaries:
    count: int


@dataclass(frozen=True, kw_only=True)
class _Settings:
    canaries: _Canaries | None = None
    names: str = "site"


@dataclass(frozen=True, kw_only=True)
class _World:
    """`engine` and `kernel` of a simulation; `signed_by` only where sums were formed without masks."""

    settings: _Settings
    records: str
    engine: str | None = None
    kernel: str | None = None
    signed_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Range:
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class _Backdoor:
    tested: int
    rate: _Range | None
    base: _Range | None
    lift: _Range | None


@dataclass(frozen=True, kw_only=True)
class _Adversaries:
    """Of a simulation in which sites lied: who, how, and what came of it."""

    count: Population
    sites: list[str]
    from_round: int
    records: str | None
    updates: str | None
    knows: str | None
    adaptive: bool
    tested: int
    accuracy: _Range | None
    without: _Range | None
    difference: _Range | None
    backdoor: _Backdoor | None


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    records: Population
    largest: Population
    reports: Annotated[int, msgspec.Meta(ge=1, le=2**13)]


@dataclass(frozen=True, kw_only=True)
class _Planned:
    """Of a run whose sums were formed without masks: what a deployment of its job would charge."""

    epsilon: float | None
    delta: float | None
    unit: str | None
    mode: str
    sizes: _Sizes
    sentence: str
    conditions: list[str]


@dataclass(frozen=True, kw_only=True)
class _Facts:
    """run.json, as far as audits and report rely on it."""

    run: str
    job: _Job
    manifest: _Manifest | None
    heads: dict[str, _Head]
    fingerprints: dict[str, Any] | None = None
    evaluation: _Evaluation | None = None
    baselines: _Baselines | None = None
    refusals: list[_Refused] | None = None
    ledgers_missing: list[_Refused] | None = None
    versions: dict[str, Any] | None = None
    noise: str | None = None
    world: _World | None = None
    population: Population | None = None
    planned: _Planned | None = None
    adversaries: _Adversaries | None = None


@dataclass(frozen=True, kw_only=True)
class _Round:
    """One line of rounds.jsonl."""

    round: int
    sites: list[str]
    groups: list[list[str]] | None = None
    refusals: list[_Refused] = field(default_factory=list)
    epsilon: dict[str, float | None] | None = None
    bytes: dict[str, int] | None = None
    loss: float | None = None
    accuracy: float | None = None
    exact_accuracy: float | None = None
    attack_success: float | None = None


def check_facts(facts: Mapping[str, Any]) -> None:
    """Refuse a run.json of another form. Errors: Refusal DATA_INVALID with the place."""
    heads = facts.get("heads")
    if isinstance(heads, dict):
        heads = {name: {**head, "epsilon": None} if isinstance(head, dict) else head for name, head in heads.items()}
    _check({**facts, "heads": heads}, _Facts, "run.json")
    told = [facts.get(name) is not None for name in ("population", "planned", "world")]
    if (facts["manifest"] is None) != (told[0] and told[1]) or (told[0] and not told[2]):
        why = "it has either a manifest, or a population, a world and what was planned"
        raise invalid("run.json", why, "Use the directory as it was written")


def check_round(row: Mapping[str, Any], place: str) -> None:
    """Refuse a line of rounds.jsonl of another form. Errors: Refusal DATA_INVALID with the place."""
    _check(row, _Round, place)


def read_object(text: str, place: str) -> dict[str, Any]:
    """A JSON object. Errors: Refusal DATA_INVALID, also of a name that stands twice: readers differ in which counts."""
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, place))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise invalid(place, "it is no JSON object", "Use the directory as it was written")
    return value


def _object(pairs: list[tuple[str, Any]], place: str) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise invalid(
            place, f"the name {twice[:64]!r} stands twice in one object", "Use the directory as it was written"
        )
    return found


def invalid(what: str, why: str, do: str) -> Refusal:
    """A file that is not what a run writes."""
    return Refusal(Code.DATA_INVALID, f"{what} not read", why, do)


def _check(value: Mapping[str, Any], kind: Any, place: str) -> None:
    try:
        msgspec.convert(value, type=kind, strict=True)
        where = _not_finite(value, "")
    except msgspec.ValidationError as error:
        raise invalid(place, str(error).replace("`", "'"), "Use the directory as it was written") from None
    except RecursionError:
        raise invalid(place, "it is nested too deeply", "Use the directory as it was written") from None
    if where:
        raise invalid(place, f"the number at {where[1:]} is not finite", "Use the directory as it was written")


def _not_finite(value: Any, where: str) -> str:
    """Place of the first number in `value` that is not finite; empty if there is none."""
    if isinstance(value, float) and not math.isfinite(value):
        return where
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((found for name, part in inner if (found := _not_finite(part, f"{where}.{name}"))), "")

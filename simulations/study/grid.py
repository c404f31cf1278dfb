"""From a study to its rows: every combination of the axes that no rule leaves out, as a scenario of its own."""

from __future__ import annotations

import copy
import difflib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from common.config import canonical, plain
from common.errors import Code, Refusal
from simulations.scenario import Scenario, put, scenario_of_table
from simulations.study.plan import Study

MOST_ROWS = 10_000
_ABSENT = object()


@dataclass(frozen=True)
class Variant:
    """One combination. settings: by axis its value, or the name of its arm.  scenario: what that makes."""

    settings: Mapping[str, Any]
    scenario: Scenario = field(repr=False)


def variants(study: Study) -> tuple[Variant, ...]:
    """All variants, in the order of the file; the last axis runs fastest.

    Errors: Refusal CONFIG_INVALID with the combination that is no scenario, for a rule that leaves out nothing or
    for one that leaves nothing; FILE_MISSING for data that are not at hand.
    """
    found = [(settings, _scenario(study, settings)) for settings in _combinations(study)]
    left_out = [[_matches(rule, settings, made) for rule in study.exclude] for settings, made in found]
    for number, rule in enumerate(study.exclude):
        if not any(hits[number] for hits in left_out):
            raise _idle(rule, found[0][0], found[0][1])
    kept = [Variant(*each) for each, hits in zip(found, left_out, strict=True) if not any(hits)]
    if not kept:
        raise Refusal(Code.CONFIG_INVALID, "Study not read", "its rules leave out every row", "Remove a rule")
    return tuple(kept)


def words(settings: Mapping[str, Any]) -> str:
    """A combination as a person writes it: "job.rounds = 3, privacy = M2"."""
    return ", ".join(f"{name} = {word(value)}" for name, value in settings.items()) or "the scenario as it is"


def word(value: Any) -> str:
    """One value in few letters."""
    if isinstance(value, Mapping):
        return " ".join(f"{name}={word(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(word, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _combinations(study: Study) -> Iterator[dict[str, Any]]:
    count = 1
    for values in study.axes.values():
        count *= len(values)
    if count > MOST_ROWS:
        why = f"its axes make {count} rows, more than {MOST_ROWS}"
        raise Refusal(Code.CONFIG_INVALID, "Study not read", why, "Give fewer values, or several studies")
    for values in itertools.product(*study.axes.values()):
        yield dict(zip(study.axes, values, strict=True))


def _scenario(study: Study, settings: Mapping[str, Any]) -> Scenario:
    table = copy.deepcopy(study.scenario)
    for part, name in (("world", "seed"), ("job", "seed")):
        put(table, f"{part}.{name}", 0)  # of the study, later
    try:
        for axis, value in settings.items():
            for name, setting in study.settings_of(axis, value).items():
                put(table, name, copy.deepcopy(setting))
        return scenario_of_table(table)
    except Refusal as refusal:
        raise Refusal(refusal.code, f"{words(settings)}: {refusal.what}", refusal.why, refusal.do) from None


def _matches(rule: Mapping[str, Any], settings: Mapping[str, Any], scenario: Scenario) -> bool:
    return all(_same(_value(name, settings, scenario), value) for name, value in rule.items())


def _value(name: str, settings: Mapping[str, Any], scenario: Scenario) -> Any:
    """The value of an axis as it was given, otherwise the setting of that dotted name."""
    if name in settings:
        return settings[name]
    value: Any = plain(scenario)
    for part in name.split("."):
        value = value.get(part, _ABSENT) if isinstance(value, Mapping) else _ABSENT
    return value


def _same(one: Any, other: Any) -> bool:
    return one is not _ABSENT and canonical(one) == canonical(other)


def _idle(rule: Mapping[str, Any], settings: Mapping[str, Any], scenario: Scenario) -> Refusal:
    """A rule that leaves out nothing was meant otherwise."""
    why = "no row has all of these values"
    for name in rule:
        if _value(name, settings, scenario) is _ABSENT:
            known = [*settings, *_names(plain(scenario))]
            near = difflib.get_close_matches(name, known, 1)
            why = f"there is no setting {name!r}" + (f"; the nearest is {near[0]!r}" if near else "")
    return Refusal(Code.CONFIG_INVALID, f"Exclusion of {words(rule)}", why, "Correct the rule, or remove it")


def _names(table: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for name, value in table.items():
        yield f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _names(value, f"{above}{name}.")

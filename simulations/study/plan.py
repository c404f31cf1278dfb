"""study.toml: a scenario, what is varied, over how many seeds, and what the results must reach."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from common.config import canonical, finite, load, naming, one_of, read_table
from common.errors import Code, Refusal
from simulations.engines.catalogue import EngineName
from simulations.scenario import EXAMPLES, found, parted, put
from simulations.study.gates import Gate, gate_of

STUDIES = ("splits", "epsilons", "deadline", "byzantine", "mnist-votes")
SET_BY_STUDY = ("world.seed", "world.seeds", "job.seed")


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """The table [seeds]: every variant is played `n` times; all seeds of a replicate follow from `root` alone."""

    n: int
    root: int

    def __post_init__(self) -> None:
        finite(self.n, "seeds.n", at_least=1, at_most=10_000)
        finite(self.root, "seeds.root", at_least=0, at_most=2**53)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The file of a study. Seeds of the scenario are set by the study and need not be there.

    scenario  as scenario.toml; in the file also its path, from the folder of the study, or the name of an example
    changes   settings of the scenario to replace, by dotted name
    grid      by dotted name the values that the setting takes; every combination is a row
    arms      further axes whose values have names and replace several settings at once: [arms.AXIS.NAME]
    exclude   combinations to leave out: rows of which every setting named here has the value given here
    twin      settings to replace in the twin without privacy that every private cell has, besides what must change
    gates     "METRIC.low" (or mean, high) = ">= NUMBER": what must hold in every row
    target    accuracy of which the table of worlds with a clock says after how many hours it was reached
    workers   processes at a time; as many as there are processors, if left out
    """

    name: str
    scenario: dict[str, Any]
    seeds: Seeds
    engine: str = EngineName.PROCESS.value
    workers: int | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    arms: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    exclude: tuple[dict[str, Any], ...] = ()
    twin: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, str] = field(default_factory=dict)
    target: float | None = None

    def __post_init__(self) -> None:
        one_of(self.engine, "engine", [each.value for each in EngineName])
        if self.workers is not None:
            finite(self.workers, "workers", at_least=1, at_most=1024)
        for axis, values in self.axes.items():
            _refuse_repeated(axis, [canonical(value) for value in values])
        if clash := sorted(self.grid.keys() & self.arms.keys()):
            raise _invalid(f"arms.{clash[0]}", "the grid has an axis of that name", "Rename the arms")
        for arm in self._every_arm():
            _refuse_bare(arm, "arms")
        for table in (self.changes, self.grid, self.twin, *self._every_arm()):
            _refuse_seeds(table)
        if self.target is not None:
            finite(self.target, "target", above=0, at_most=1)
        _ = self.limits

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """What is varied: by name of the axis its values, or the names of its arms."""
        return {**self.grid, **{axis: tuple(arms) for axis, arms in self.arms.items()}}

    @property
    def limits(self) -> tuple[Gate, ...]:
        """The gates, read. Errors: Refusal CONFIG_INVALID."""
        return tuple(gate_of(figure, text) for figure, text in self.gates.items())

    def settings_of(self, axis: str, value: Any) -> Mapping[str, Any]:
        """The settings of the scenario that a value of an axis replaces."""
        return {axis: value} if axis in self.grid else self.arms[axis][value]

    def _every_arm(self) -> list[dict[str, Any]]:
        return [arm for arms in self.arms.values() for arm in arms.values()]


def is_study(path: Path) -> bool:
    """Whether the file holds a study and no scenario. Errors: Refusal FILE_MISSING, CONFIG_INVALID."""
    return "scenario" in read_table(path)


def found_study(path: Path) -> Path:
    """`path`, or the packaged example of a scenario or study that it names: "splits", "examples/splits.toml"."""
    if path.stem in STUDIES and str(path.parent) in (".", "examples", "studies") and not path.exists():
        return Path(str(files("simulations") / "examples" / "studies" / f"{path.stem}.toml"))
    return found(path)


def read_study(path: Path, changes: Sequence[str] = ()) -> Study:
    """The study of a file, its scenario read too.

    changes  settings of the scenario to replace, as "job.rounds=10"
    Errors: Refusal FILE_MISSING, CONFIG_INVALID naming the nearest of what is known.
    """
    table = read_table(path)
    scenario = table.get("scenario")
    if isinstance(scenario, str):
        beside = path.parent / scenario
        table["scenario"] = read_table(beside if beside.exists() or scenario not in EXAMPLES else found(Path(scenario)))
    with naming(path):
        return study_of(table, changes)


def study_of(table: Mapping[str, Any], changes: Sequence[str] = ()) -> Study:
    """The study of a table such as its file holds. Errors: Refusal CONFIG_INVALID."""
    table = copy.deepcopy(dict(table))
    for name in ("grid", "changes", "twin"):
        _refuse_bare(table.get(name), name)
    for rule in table.get("exclude") or ():
        _refuse_bare(rule, "exclude", arms=table.get("arms") or ())
    asked = dict(map(parted, changes))
    _refuse_seeds(asked)
    study = load(Study, table)
    study = replace(study, changes={**study.changes, **asked})
    for name, value in study.changes.items():  # applied to what they were applied to already, they change nothing
        put(study.scenario, name, copy.deepcopy(value))
    return study


def _refuse_bare(table: Any, place: str, *, arms: Container[str] = ()) -> None:
    """TOML reads job.rounds = 3 as a table "job", which would replace all of the job; in quotes it is one name."""
    for name in table if isinstance(table, dict) else ():
        if "." not in name and name not in arms:
            why = "it is no dotted name of a setting"
            raise _invalid(f"{place}: {name!r}", why, 'Write the whole name in quotes: "job.rounds" = …')


def _refuse_repeated(axis: str, values: Sequence[bytes]) -> None:
    if not values:
        raise _invalid(f"Axis {axis!r}", "it has no value", "Give one, or remove the axis")
    if len(set(values)) < len(values):
        raise _invalid(f"Axis {axis!r}", "one of its values occurs twice", "Give each value once")


def _refuse_seeds(settings: Iterable[str]) -> None:
    for name in settings:
        if name in SET_BY_STUDY or name.startswith("world.seeds."):
            why = "a study sets the seeds of all its cells, so that they can be compared"
            raise _invalid(f"Setting {name!r}", why, "Choose seeds.n and seeds.root instead")


def _invalid(what: str, why: str, do: str) -> Refusal:
    return Refusal(Code.CONFIG_INVALID, what, why, do)

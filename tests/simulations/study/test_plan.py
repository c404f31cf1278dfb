"""Study files: every name is checked, every combination is a scenario, and seeds depend on nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as some

from common.config import load, plain
from common.errors import Code, Refusal
from simulations.faults import FaultSettings
from simulations.partitioners import Kind
from simulations.study.cells import ROLES, Row, cells_of, check, rows_of, seed_of
from simulations.study.plan import STUDIES, Seeds, Study, found_study, is_study, read_study, study_of
from tests.simulations.study.fakes import study_table
from tests.simulations.test_datasets import DATA
from tests.worlds import PRIVACY

RATES = "job.training.learning_rate"
EVEN = {"kind": "even", "sites": 4, "minimum": 40}
UNEVEN = {"kind": "uneven", "sites": 4, "minimum": 20, "concentration": 2.0}
ARMS = {"privacy": {"off": {"job.privacy": {"mode": "none"}}, "M1": {"job.privacy": PRIVACY["M1"]}}}


def rows(**changes: Any) -> tuple[Row, ...]:
    return rows_of(study_of(study_table(**changes)))


def refused(**changes: Any) -> str:
    with pytest.raises(Refusal) as found:
        check(rows(**changes))
    assert found.value.code is Code.CONFIG_INVALID
    return str(found.value)


def test_every_combination_is_a_row_and_the_last_axis_runs_fastest() -> None:
    made = rows(grid={RATES: [0.25, 0.5], "world.partition": [EVEN, UNEVEN]}, arms=ARMS)
    assert len(made) == 8
    assert [row.settings["privacy"] for row in made[:2]] == ["off", "M1"]
    assert made[0].settings == {RATES: 0.25, "world.partition": EVEN, "privacy": "off"}
    scenario = made[7].cells[0].scenario
    assert scenario.job.training.learning_rate == 0.5
    assert scenario.world.partition.concentration == 2.0
    assert scenario.job.privacy.mode == "M1"


def test_rules_leave_out_rows_by_axis_by_setting_and_by_arm() -> None:
    grid = {RATES: [0.25, 0.5], "world.partition": [EVEN, UNEVEN]}
    left = rows(grid=grid, arms=ARMS, exclude=[{"world.partition.kind": "uneven", "privacy": "M1"}, {RATES: 0.5}])
    assert [(row.settings["world.partition"]["kind"], row.settings["privacy"]) for row in left] == [
        ("even", "off"),
        ("even", "M1"),
        ("uneven", "off"),
    ]
    assert {row.settings[RATES] for row in left} == {0.25}
    assert len(rows(grid=grid, exclude=[{"world.partition": UNEVEN}])) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grdi": {}}, "the nearest is 'grid'"),
        ({"seeds": {"n": 3, "rot": 1}}, "the nearest is 'root'"),
        ({"seeds": {"n": 0, "root": 1}}, "at least 1"),
        ({"engine": "lop"}, "the nearest is 'loop'"),
        ({"workers": 0}, "at least 1"),
        ({"grid": {"job.round": [1, 2]}}, "the nearest is 'rounds'"),
        ({"grid": {"world.partition.sitse": [3]}}, "the nearest is 'sites'"),
        ({"grid": {"job.rounds": [1, "many"]}}, "job.rounds = many"),
        ({"grid": {"job.rounds": []}}, "no value"),
        ({"grid": {"job.rounds": [3, 3]}}, "twice"),
        ({"grid": {"job.rounds": 3}}, "array"),
        ({"grid": {"job": {"rounds": [3]}}}, "in quotes"),
        ({"changes": {"job": {"rounds": 3}}}, "in quotes"),
        ({"changes": {"job.round": 3}}, "the nearest is 'rounds'"),
        ({"arms": {"one": {"a": {"rounds": 3}}}}, "in quotes"),
        ({"arms": {RATES: {"a": {"job.rounds": 3}}}}, "Rename the arms"),
        ({"exclude": [{RATES: 0.75}]}, "no row has all"),
        ({"exclude": [{"job.training.learning_rat": 0.25}]}, "the nearest is 'job.training.learning_rate'"),
        ({"exclude": [{"job.rounds": 40}]}, "leave out every row"),
        ({"grid": {"job.seed": [1, 2]}}, "sets the seeds"),
        ({"changes": {"world.seeds.deal": 3}}, "sets the seeds"),
        ({"gates": {"accurracy.low": ">= 0.9"}}, "the nearest is 'accuracy'"),
        ({"gates": {"accuracy": ">= 0.9"}}, "METRIC.low"),
        ({"gates": {"accuracy.lower": ">= 0.9"}}, "METRIC.low"),
        ({"gates": {"accuracy.low": "> 0.9"}}, "no limit"),
        ({"gates": {"accuracy.low": ">= nan"}}, "no limit"),
        ({"grid": {"world.partition.sites": [4, 500]}}, "world.partition.sites = 500"),
        ({"grid": {"job.model.name": ["logistic", "logistics"]}}, "the nearest is 'logistic'"),
        ({"changes": {"job.model.settings.layers": 3}}, "layers"),
        ({"grid": {"job.aggregation.strategy": ["fedavg", "fedavgg"]}}, "the nearest is 'fedavg'"),
        ({"grid": {f"job.a{i}": list(range(100)) for i in range(3)}}, "more than 10000"),
        ({"arms": ARMS, "twin": {"job.round": 3}}, "its twin without privacy"),
    ],
)
def test_what_is_no_study_is_refused_before_work_starts(changes: dict[str, Any], said: str) -> None:
    assert said in refused(**changes)


def test_seeds_of_the_scenario_are_the_study_s() -> None:
    made = rows(seeds={"n": 4, "root": 7})
    seeds = Seeds(n=4, root=7)
    for row in made:
        for number, cell in enumerate(row.cells):
            world, job = cell.scenario.world, cell.scenario.job
            found = (world.seed_of("data"), world.seed_of("deal"), job.seed, world.seed, world.seed_of("noise"))
            assert found == tuple(seed_of(seeds, role, number) for role in ROLES)
    assert len({seed_of(seeds, role, number) for role in ROLES for number in range(4)}) == 20


@given(root=some.integers(0, 2**53), replicate=some.integers(0, 9999), role=some.sampled_from(ROLES))
def test_a_seed_depends_on_root_role_and_replicate_alone(root: int, replicate: int, role: str) -> None:
    """Must: be the same in a longer study. Must not: be the seed of another role, root or replicate."""
    found = seed_of(Seeds(n=1, root=root), role, replicate)
    assert found == seed_of(Seeds(n=500, root=root), role, replicate)
    assert 0 <= found < 2**53
    others = [seed_of(Seeds(n=1, root=root), other, replicate) for other in ROLES if other != role]
    assert found not in [*others, seed_of(Seeds(n=1, root=root), role, replicate + 1)]
    assert root == 2**53 or found != seed_of(Seeds(n=1, root=root + 1), role, replicate)


def test_more_values_axes_and_seeds_move_no_cell_that_was_there() -> None:
    before = {cell.key for cell in cells_of(rows())}
    more = {RATES: [0.1, 0.25, 0.3, 0.5], "job.rounds": [10, 40]}
    after = {cell.key for cell in cells_of(rows(grid=more, seeds={"n": 5, "root": 1}))}
    assert before < after
    assert before.isdisjoint({cell.key for cell in cells_of(rows(seeds={"n": 3, "root": 2}))})


def test_every_private_cell_has_a_twin_without_privacy_under_the_same_seeds() -> None:
    m2 = {**PRIVACY["M2"], "noise": "replay"}
    arms = {"privacy": {f"e{e:g}": {"job.privacy": {**m2, "epsilon": e}} for e in (2.0, 8.0)}}
    scenario = study_table()["scenario"]
    scenario["job"]["aggregation"] = {"strategy": "fedsgd", "quorum": 3, "deadline_seconds": 9.0}
    made = rows(scenario=scenario, grid={}, arms=arms, twin={RATES: 0.125})
    assert made[0].twins == made[1].twins, "budgets share one twin"
    assert len(cells_of(made)) == 9
    for row in made:
        for cell, twin in zip(row.cells, row.twins, strict=True):
            assert twin.scenario.world == cell.scenario.world
            assert (twin.scenario.job.seed, twin.scenario.job.rounds) == (cell.scenario.job.seed, 40)
            assert twin.scenario.job.privacy.mode == "none"
            assert twin.scenario.job.training.learning_rate == 0.125
            assert (twin.scenario.job.aggregation.bits, twin.scenario.job.aggregation.bound) == (32, 64.0)
    assert all(row.twins == row.cells for row in rows()), "without privacy a cell is its own twin"


def test_cells_are_named_by_content_and_code() -> None:
    one, two = cells_of(rows())[:2]
    assert one.id("a") != one.id("b")
    assert one.id("a") != two.id("a")
    again = cells_of(rows(name="other", gates={"accuracy.low": ">= 0.5"}))[0]
    assert again.id("a") == one.id("a"), "what a study is called, or asks of results, makes no other result"


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "mnist-votes" or (DATA / "mnist").is_dir()])
def test_every_example_is_whole_and_comes_back_from_its_plain_form(name: str) -> None:
    path = found_study(Path(name))
    assert is_study(path)
    study = read_study(path)
    check(rows_of(study))
    assert study_of(plain(study)) == study
    assert load(Study, plain(study)) == study
    assert list(plain(study)["grid"]) == list(study.grid)


def test_what_the_command_line_changes_is_kept_when_a_study_goes_on() -> None:
    """Must: be stronger than the changes in the file. Must not: be forgotten by whoever reads the plan again."""
    asked = study_of(study_table(changes={"job.rounds": 10}), ["job.rounds=3"])
    again = study_of(plain(asked))
    assert again == asked
    assert [row.cells[0].scenario.job.rounds for row in rows_of(again)] == [3, 3]


def test_a_scenario_may_be_named_or_lie_beside_the_study(tmp_path: Path) -> None:
    text = 'name = "s"\nscenario = "{}"\n[seeds]\nn = 1\nroot = 1\n[grid]\n"job.rounds" = [2, 3]\n'
    (tmp_path / "study.toml").write_text(text.format("clinics"))
    named = read_study(tmp_path / "study.toml", ["job.name=mine"])
    assert named.scenario["job"]["name"] == "mine"
    assert [row.cells[0].scenario.job.rounds for row in rows_of(named)] == [2, 3]
    (tmp_path / "here.toml").write_bytes(found_study(Path("clinics")).read_bytes())
    (tmp_path / "study.toml").write_text(text.format("here.toml"))
    assert read_study(tmp_path / "study.toml").scenario["job"]["name"] == "clinics"
    (tmp_path / "study.toml").write_text(text.format("nowhere.toml"))
    with pytest.raises(Refusal) as found:
        read_study(tmp_path / "study.toml")
    assert found.value.code is Code.FILE_MISSING
    with pytest.raises(Refusal, match="sets the seeds"):
        study_of(study_table(), ["job.seed=3"])


def test_the_file_in_the_documentation_is_a_study(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "deploy" / "docs" / "studies.md").read_text(encoding="utf-8")
    block, faults = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    assert load(FaultSettings, tomllib.loads(faults)["world"]["faults"]).timed
    (tmp_path / "study.toml").write_text(block, encoding="utf-8")
    made = rows_of(read_study(tmp_path / "study.toml"))
    check(made)
    assert len(made) == 10
    kinds = set(get_args(Kind))
    assert {kind for kind in kinds if f"| `{kind}` |" in text} == kinds

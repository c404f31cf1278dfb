"""Scenarios: every example is whole, every change is checked, nothing is guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config import load, plain
from common.errors import Code, Refusal
from common.job import Job
from simulations.datasets import dataset
from simulations.provision import deal, noise_seed, policy_of, rules_of, split_key
from simulations.scenario import EXAMPLES, FaultSettings, Scenario, World, example, read_scenario
from tests.worlds import scenario

CLINICS = example("clinics")


def refused(*changes: str) -> Refusal:
    with pytest.raises(Refusal) as found:
        read_scenario(CLINICS, changes)
    assert found.value.code is Code.CONFIG_INVALID
    return found.value


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_read_and_comes_back_from_its_plain_form(name: str) -> None:
    read = read_scenario(example(name))
    assert load(Scenario, plain(read)) == read
    assert load(Job, plain(read.job)) == read.job
    assert read.job.privacy.noise == "system"


def test_an_unknown_example_is_refused() -> None:
    with pytest.raises(Refusal, match="clinics, digits"):
        example("clinic")


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("job.rounds=7", 7),
        ("job.privacy.epsilon=1.5", 1.5),
        ("job.name=other", "other"),
        ('job.name="other"', "other"),
        ("world.faults.dropout=0.25", 0.25),
        ("world.partition.sites = 5", 5),
    ],
)
def test_a_setting_is_replaced_by_name(change: str, value: Any) -> None:
    found: Any = read_scenario(CLINICS, [change])
    for name in change.partition("=")[0].strip().split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("job.round=7", "'rounds'"),
        ("jobs.rounds=7", "'job'"),
        ("job.rounds", "a.b=value"),
        ("=7", "a.b=value"),
        ("job.rounds=many", "int"),
        ("job.rounds=7.0", "int"),
        ("job.rounds.more=7", "holds no settings"),
        ("job.rounds=0", "above 0"),
        ("job..rounds=7", "no setting ''"),
        ("world.faults.dropout=1", "below 1"),
        ("world.holdout=0.0", "above 0"),
    ],
)
def test_a_change_that_fits_nowhere_is_refused(change: str, said: str) -> None:
    assert said in str(refused(change))


def test_the_schema_of_a_data_set_is_filled_in_unless_it_is_given() -> None:
    assert {feature.name for feature in read_scenario(CLINICS).job.data.features} >= {"age", "bmi"}
    with pytest.raises(Refusal, match="the nearest is 'clinics'"):
        read_scenario(CLINICS, ["job.dataset=clinic"])


# sites, quorum, unmasking sites, of which lost and corrupt
SIZES = [(2, 2, 2, 0, 1), (3, 2, 2, 0, 1), (4, 3, 3, 0, 2), (5, 4, 4, 0, 3), (6, 5, 5, 1, 2), (8, 7, 5, 1, 2)]


@pytest.mark.parametrize(("sites", "quorum", "unmaskers", "lost", "corrupt"), [*SIZES, (16, 15, 8, 1, 5)])
def test_another_number_of_sites_keeps_a_quorum_that_one_may_miss(
    sites: int, quorum: int, unmaskers: int, lost: int, corrupt: int
) -> None:
    """Must: be able to open a session while one site is away, and from six sites on to go on when one is lost."""
    sized = read_scenario(CLINICS).with_sizes(sites=sites, rounds=5, epsilon=2.0)
    assert sized.world.partition.sites == sites
    assert sized.job.aggregation.quorum == quorum
    assert sized.job.rounds == 5
    assert sized.job.privacy.epsilon == sized.job.privacy.evaluation_epsilon == 2.0
    rules = rules_of(sized, sites)
    assert (rules.unmaskers_min, rules.lost_max, rules.corrupt_max) == (unmaskers, lost, corrupt)
    assert unmaskers <= max(2, sites - 1)


def test_unmasking_sites_that_a_scenario_names_are_kept() -> None:
    three = read_scenario(CLINICS)
    assert rules_of(three, 4).unmaskers_min == 3
    many = read_scenario(CLINICS, ["world.unmaskers=7", "world.lost_max=2"])
    rules = rules_of(many, 16)
    assert (rules.unmaskers_min, rules.lost_max, rules.shares_min, rules.corrupt_max) == (7, 2, 5, 2)
    with pytest.raises(Refusal, match="unmaskers_min of at least 5"):
        rules_of(read_scenario(CLINICS, ["world.lost_max=2"]), 4)


def test_a_size_of_zero_is_refused_and_not_ignored() -> None:
    for sizes in ({"sites": 0}, {"rounds": 0}, {"epsilon": 0.0}):
        with pytest.raises(Refusal):
            read_scenario(CLINICS).with_sizes(**{"sites": None, "rounds": None, "epsilon": None, **sizes})
    same = read_scenario(CLINICS)
    assert same.with_sizes(sites=None, rounds=None, epsilon=None) == same


def test_sites_are_named_by_letter_and_by_number_where_letters_end() -> None:
    world: World = read_scenario(CLINICS).world
    assert world.site_names(3) == ("clinic-a", "clinic-b", "clinic-c")
    assert world.site_names(27)[-1] == "clinic-27"


@pytest.mark.parametrize("chance", [-0.1, 1.0, float("nan")])
def test_a_chance_of_dropping_out_is_below_one(chance: float) -> None:
    with pytest.raises(Refusal):
        FaultSettings(dropout=chance)


def test_a_policy_allows_the_job_and_nothing_beyond_it() -> None:
    policy = policy_of(scenario("M2"))
    assert policy["privacy"]["max_epsilon"] == 8.0
    assert policy["privacy"]["modes"] == ["M2"]
    assert policy["data"]["datasets"] == ["clinics"]
    assert policy_of(read_scenario(CLINICS))["privacy"]["allow_replay"] is False


def test_split_keys_are_a_site_s_own_and_repeat_with_the_seed() -> None:
    one, two = read_scenario(CLINICS), read_scenario(CLINICS, ["world.seed=2"])
    assert split_key(one, "clinic-a") == split_key(one, "clinic-a")
    assert len({split_key(one, "clinic-a"), split_key(one, "clinic-b"), split_key(two, "clinic-a")}) == 3


@pytest.mark.parametrize(("part", "place"), [("data", 0), ("deal", 1), ("noise", 2)])
def test_a_seed_of_a_part_moves_that_part_alone(part: str, place: int) -> None:
    """Must: change one of split, deal and noise. Must not: change anything where it says what the world's seed says."""

    def drawn(*changes: str) -> list[object]:
        made = read_scenario(CLINICS, changes)
        rows = [each.tolist() for each in deal(made, dataset("clinics"))]
        return [split_key(made, "clinic-a"), rows, noise_seed(made, "clinic-a")]

    before, after = drawn(), drawn(f"world.seeds.{part}=7")
    assert [before[i] == after[i] for i in range(3)] == [i != place for i in range(3)]
    assert drawn(f"world.seeds.{part}=1") == before
    assert after[place] == drawn("world.seed=7")[place]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as found:
        read_scenario(tmp_path / "none.toml")
    assert found.value.code is Code.FILE_MISSING

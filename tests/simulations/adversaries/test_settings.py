"""The table [world.adversaries]: whole or refused, naming the nearest; fewer liars are some of more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config import load, plain
from common.errors import Code, Refusal
from simulations.adversaries.settings import Adversaries
from simulations.demo import deploy
from simulations.scenario import Scenario
from tests.worlds import scenario

FLIP = {"attack": "sign-flip", "knows": "own", "settings": {"scale": 2.0}}
LABELS = {"attack": "label-flip"}


def table(**changes: Any) -> dict[str, Any]:
    whole = {"sites": 1, "from_round": 1, "updates": FLIP, **changes}
    return {name: value for name, value in whole.items() if value is not None}


def read(**changes: Any) -> Adversaries:
    return load(Adversaries, table(**changes), "world.adversaries")


def test_a_table_comes_back_from_its_plain_form() -> None:
    for made in (read(), read(sites=None, share=0.2), read(updates=None, records=LABELS), read(records=LABELS)):
        assert load(Adversaries, plain(made)) == made
    made = scenario("none", {"world.adversaries": table()})
    assert load(Scenario, plain(made)) == made


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"updates": {**FLIP, "attack": "sign-flop"}}, "the nearest is 'sign-flip'"),
        ({"updates": {**FLIP, "settings": {"scael": 2.0}}}, "the nearest is 'scale'"),
        ({"updates": None, "records": {"attack": "label-flop"}}, "the nearest is 'label-flip'"),
        ({"updates": None, "records": {"attack": "patch", "settings": {"target": 0}}}, "size"),
        ({"updates": {"attack": "sign-flip"}}, "knows"),
        ({"updates": {**FLIP, "knows": "everything"}}, "honest, own"),
        ({"updates": None}, "nobody lies"),
        ({"sites": None}, "says how many lie"),
        ({"share": 0.5}, "says how many lie"),
        ({"sites": 0}, "above 0"),
        ({"sites": None, "share": 1.0}, "below 1"),
        ({"from_round": None}, "from_round"),
        ({"from_round": 0}, "above 0"),
        ({"liars": 2}, "no setting 'liars'"),
        ({"updates": {**FLIP, "adaptive": True}}, "is searched"),
        ({"updates": {"attack": "sign-flip", "knows": "own", "adaptive": True}}, "must know"),
        ({"updates": {"attack": "gaussian", "knows": "honest", "adaptive": True}}, "adaptive attack = 'gaussian'"),
    ],
    ids=str,
)
def test_what_is_unknown_missing_or_without_sense_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Refusal, match=said) as refused:
        read(**changes)
    assert refused.value.code is Code.CONFIG_INVALID


def test_fewer_liars_are_some_of_more_and_another_seed_chooses_others() -> None:
    chosen = [read(sites=count).liars(40, 7) for count in (1, 4, 20)]
    assert chosen[0] < chosen[1] < chosen[2] <= frozenset(range(1, 41))
    assert [len(each) for each in chosen] == [1, 4, 20]
    assert read(sites=4).liars(40, 8) != chosen[1]
    assert read(sites=None, share=0.1).liars(40, 7) == chosen[1]
    assert len(read(sites=None, share=0.01).liars(3, 7)) == 1
    with pytest.raises(Refusal, match="somebody must be honest"):
        read(sites=3).liars(3, 7)


def test_an_attack_that_the_records_do_not_allow_is_refused_before_any_round() -> None:
    for attack in (
        {"attack": "edge-case", "settings": {"source": 0, "target": 1}},
        {"attack": "patch", "settings": {"target": 7, "size": 1, "share": 0.5}},
    ):
        with pytest.raises(Refusal) as refused:
            scenario("none", {"world.adversaries": table(updates=None, records=attack)})
        assert refused.value.code is Code.CONFIG_INVALID


def test_lying_sites_are_refused_with_canaries_and_in_processes_of_their_own(tmp_path: Path) -> None:
    lying = {"world.adversaries": table()}
    with pytest.raises(Refusal, match=r"world\.canaries with world\.adversaries"):
        scenario("none", {**lying, "world.canaries": {"count": 4}})
    with pytest.raises(Refusal, match="not settled"):
        deploy(scenario("none", lying), tmp_path / "federation")
    assert not (tmp_path / "federation").exists()

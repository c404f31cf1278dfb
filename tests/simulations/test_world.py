"""Worlds: the same seeds give the same model bit for bit; sites drop out, differ in number, and may be real."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.config import plain
from common.errors import Code, Refusal
from common.privacy.entries import Kind, parse_public
from simulations.backstage import backstage_of
from simulations.datasets import HOSPITALS, dataset
from simulations.partitioners import Partition
from simulations.provision import settle
from simulations.scenario import Scenario, read_scenario
from simulations.scenario import example as example_of
from simulations.world import Finished, simulate
from simulations.yardsticks import Yardsticks, measure
from tests.worlds import scenario

NO_DATA = "no public data at HUSHFED_DATA"


def judged(finished: Finished) -> Yardsticks:
    job = finished.work.job
    return measure(job, backstage_of(finished.federation, job), [finished.state.parameters])


def model_of(finished: Finished) -> bytes:
    return finished.state.parameters.tobytes()


@pytest.mark.parametrize("mode", ["none", "M1", "M2"])
def test_the_same_seeds_give_the_same_model_bit_for_bit(mode: str, tmp_path: Path) -> None:
    one, two = (simulate(scenario(mode), tmp_path / name) for name in ("one", "two"))
    assert model_of(one) == model_of(two)
    assert [row["loss"] for row in one.state.rounds] == [row["loss"] for row in two.state.rounds]
    assert one.state.evaluation is not None
    assert two.state.evaluation is not None
    assert one.state.evaluation["counts"] == two.state.evaluation["counts"]


@pytest.mark.parametrize(
    "change", [{"world.seed": 2}, {"job.seed": 2, "job.model.name": "mlp"}, {"job.privacy.noise": "system"}], ids=str
)
def test_another_seed_or_secret_noise_gives_another_model(change: dict[str, Any], tmp_path: Path) -> None:
    same = {name: value for name, value in change.items() if name == "job.model.name"}
    one, two = simulate(scenario("M2", same), tmp_path / "one"), simulate(scenario("M2", change), tmp_path / "two")
    assert model_of(one) != model_of(two)


def test_secret_noise_never_repeats(tmp_path: Path) -> None:
    made = scenario("M2", {"job.privacy.noise": "system", "job.rounds": 1})
    assert model_of(simulate(made, tmp_path / "one")) != model_of(simulate(made, tmp_path / "two"))


def test_dropouts_come_by_seed_and_every_loss_is_written_down(tmp_path: Path) -> None:
    """Must: lose the same reports in every replay of the world, and charge for them. Must not: lose the run."""
    changes = {"world.faults": {"dropout": 0.25}, "job.rounds": 8}
    one, two = (simulate(scenario("none", changes), tmp_path / name) for name in ("one", "two"))
    assert model_of(one) == model_of(two)
    assert [row["sites"] for row in one.state.rounds] == [row["sites"] for row in two.state.rounds]
    lost = [refusal for row in one.state.rounds for refusal in row["refusals"]]
    assert lost
    assert {refusal["code"] for refusal in lost} == {"SITE_UNREACHABLE"}
    assert any(len(row["sites"]) == 2 for row in one.state.rounds)
    assert len(list((one.record / "ledgers").iterdir())) == 3


@pytest.mark.parametrize("drawn", [{"job.aggregation.cohort": 4}, {"job.aggregation.site_rate": 0.7}], ids=str)
def test_rounds_ask_a_few_of_the_sites(drawn: dict[str, Any], tmp_path: Path) -> None:
    """Must: draw every round anew and by the seed, in one session. Must not: charge a site that was not asked."""
    base = scenario("none").with_sizes(sites=8, rounds=6, epsilon=None)
    few = replace(base.job.aggregation, quorum=3, **{name.rpartition(".")[2]: n for name, n in drawn.items()})
    made = Scenario(world=base.world, job=replace(base.job, aggregation=few))
    one, two = (simulate(made, tmp_path / name) for name in ("one", "two"))
    assert model_of(one) == model_of(two)
    asked = [set(row["sites"]) for row in one.state.rounds]
    assert len({tuple(sorted(sites)) for sites in asked}) > 1
    assert all(3 <= len(sites) <= (4 if few.cohort else 8) for sites in asked)
    for site in one.federation.sites:
        lines = parse_public((one.record / "ledgers" / f"{site.name}.jsonl").read_bytes())
        entries = [json.loads(line.body) for line in lines]
        charges = [entry for entry in entries if entry["kind"] == Kind.RESERVE and entry["partition"] == "train"]
        assert len(charges) == sum(site.name in sites for sites in asked)


@pytest.mark.parametrize("sites", range(2, 9))
def test_any_small_number_of_sites_makes_a_federation(sites: int, tmp_path: Path) -> None:
    made = scenario("none").with_sizes(sites=sites, rounds=1, epsilon=None)
    made = Scenario(world=made.world, job=made.job)
    finished = simulate(made, tmp_path / "world")
    assert len(finished.federation.sites) == sites
    assert len(finished.state.rounds[0]["sites"]) == sites
    rows = [len((site.root / "data.csv").read_text().splitlines()) - 1 for site in finished.federation.sites]
    assert sum(rows) == 442


@pytest.mark.parametrize("name", ["digits", "digits-local"])
def test_images_of_many_classes_are_learned_too(name: str, tmp_path: Path) -> None:
    finished = simulate(read_scenario(example_of(name), ["job.rounds=4"]), tmp_path / "world")
    found = measure(
        finished.work.job, backstage_of(finished.federation, finished.work.job), [finished.state.parameters]
    )
    assert found.accuracy is not None
    assert found.accuracy > 0.4  # chance: 0.1
    assert found.pooled is not None
    assert found.pooled > 0.9
    assert all(0 < value <= 3 for value in finished.state.epsilon.values())


def test_a_world_is_settled_in_an_empty_folder_only(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(Refusal) as refused:
        settle(scenario("none"), tmp_path)
    assert refused.value.code is Code.FILE_EXISTS
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def hospitals() -> Scenario:
    """Four real hospitals as natural sites; or, where their data are not at hand, the embedded clinics."""
    privacy = {"job.privacy.spare_rounds": 2, "job.rounds": 6}
    natural = Partition(kind="natural", column="hospital", sites=4, minimum=40)
    try:
        schema = plain(dataset("heart").schema)
    except Refusal:
        warnings.warn(f"{NO_DATA}: the embedded clinics stand in for the four hospitals", stacklevel=2)
        return scenario("M2", privacy)
    real = {"job.dataset": "heart", "job.data": schema, "world.partition": plain(natural), "world.names": "hospital"}
    return scenario("M2", {**privacy, **real, "job.aggregation.quorum": 3})


def test_four_real_hospitals_learn_together(tmp_path: Path) -> None:
    """Sites as they are by nature: sizes, sexes and diagnoses differ, and half of the values are absent."""
    made = hospitals()
    finished = simulate(made, tmp_path / "world")
    found = measure(
        finished.work.job, backstage_of(finished.federation, finished.work.job), [finished.state.parameters]
    )
    assert len(finished.state.rounds) == 6
    assert found.accuracy is not None
    assert found.accuracy > 0.6
    table = json.loads((finished.record / "run.json").read_text())
    assert table["evaluation"]["groups"] == ["sex", "age"]
    if made.job.dataset == "heart":
        assert len(finished.federation.sites) == len(HOSPITALS)
        header = (finished.federation.sites[0].root / "data.csv").read_text().splitlines()[0]
        assert "hospital" not in header.split(",")


def test_absent_real_data_are_refused_and_the_embedded_stand_in_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HUSHFED_DATA", str(tmp_path))
    with pytest.raises(Refusal, match="Set HUSHFED_DATA") as refused:
        dataset("heart")
    assert refused.value.code is Code.FILE_MISSING
    with pytest.warns(UserWarning, match=NO_DATA):
        assert hospitals().job.dataset == "clinics"


def test_the_coordinator_s_files_hold_no_record(tmp_path: Path) -> None:
    finished = simulate(scenario("M2", {"job.rounds": 1}), tmp_path / "world")
    rows = (finished.federation.sites[0].root / "data.csv").read_bytes().splitlines()[1:4]
    for path in finished.federation.coordinator.rglob("*"):
        if path.is_file():
            assert not any(row in path.read_bytes() for row in rows)
    assert np.isfinite(finished.state.parameters).all()

"""Measurements of simulated rounds: all engines do the same work, and a row has the keys of its contract."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from common.errors import Code, Refusal
from common.parameters import flatten
from common.privacy.clipping.reference_engine import ReferenceEngine
from simulations.bench import simulate as own
from simulations.bench.door import app
from simulations.bench.simulate import engines_of, measure
from simulations.bench.simulate_private import PRIVATE, privately
from simulations.bench.simulate_rows import BARE
from simulations.bench.simulate_works import WORKS, bare, by_kernel, population
from simulations.kernels.choice import KINDS

KEYS = {
    "work", "engine", "cpu_seconds_per_round", "ratio_floor", "updates_per_second", "peak_mb", "first_round_seconds"
}  # fmt: skip
SMALL = {name: replace(each, population=6, cohort=4, records=14, batch=5) for name, each in WORKS.items()}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "WORKS", SMALL)


def test_the_works_are_those_of_the_documents() -> None:
    assert {name: each.course().size for name, each in WORKS.items()} == {
        "W1": 114_314, "W1-DP": 114_314, "W1-LDP": 114_314, "W2": 50_890, "W2-DP": 50_890
    }  # fmt: skip
    assert {(each.population, each.cohort, each.records, each.batch) for each in WORKS.values()} == {
        (100, 10, 50, 10), (2000, 1000, 50, 10)
    }  # fmt: skip
    assert [engines_of(WORKS[name]) for name in ("W1", "W1-LDP", "W2")] == [
        [BARE, "convolution", "loop"], [BARE, "bk", "opacus"], [BARE, "dual", "convolution", "loop"]
    ]  # fmt: skip
    assert WORKS["W1"].chosen(3) == WORKS["W1"].chosen(3) != WORKS["W1"].chosen(4)
    assert len(set(WORKS["W2"].chosen(0))) == 1000


@pytest.mark.parametrize("work", [name for name, each in WORKS.items() if not each.local])
def test_every_engine_sums_what_the_bare_loop_sums(work: str) -> None:
    setting = SMALL[work]
    data, parameters = population(setting), flatten(setting.course().model)
    right = bare(setting, data)(parameters, [0, 3, 5])
    for name in engines_of(setting)[1:]:
        found = by_kernel(KINDS[name].make(setting.course()), setting, data)(parameters, [0, 3, 5])
        assert np.linalg.norm(found - right) <= 1e-5 * np.linalg.norm(right)


def test_sites_with_noise_of_their_own_take_the_steps_of_one_record_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: clip every record. Must not: use the same noise twice."""
    setting = SMALL["W1-LDP"]
    data, parameters = population(setting), flatten(setting.course().model)
    noisy = privately(PRIVATE["bk"](), setting, data)
    assert not np.allclose(noisy(parameters, [0]), noisy(parameters, [0]), atol=1e-3)
    monkeypatch.setattr("client.private_step.normals", lambda count, _entropy: np.zeros(count))
    right = privately(ReferenceEngine(), setting, data)(parameters, [0, 3])
    for name, engine in PRIVATE.items():
        found = privately(engine(), setting, data)(parameters, [0, 3])
        assert np.linalg.norm(found - right) <= 1e-4 * np.linalg.norm(right), name


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("work", WORKS)
def test_rows_compare_with_the_bare_loop(work: str) -> None:
    steps: list[int] = []
    rows = measure(work, engines_of(SMALL[work]), 2, steps.append, apart=False)
    assert [row.engine for row in rows] == engines_of(SMALL[work])
    assert rows[0].ratio_floor == rows[0].ratio_median == 1.0
    assert len(steps) == 2 + 1 + len(rows)
    for row in rows:
        assert row.cpu_seconds_per_round > 0
        assert row.updates_per_second == pytest.approx(4 / row.cpu_seconds_per_round)
        assert row.ratio_floor == pytest.approx(row.cpu_seconds_per_round / rows[0].cpu_seconds_per_round)


@pytest.mark.usefixtures("small")
def test_an_engine_that_does_other_work_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    play = own._play

    def skipping(engine: str, *given):  # type: ignore[no-untyped-def]
        if engine == BARE:
            return play(engine, *given)
        return lambda parameters, sites: play(engine, *given)(parameters, sites[1:])

    monkeypatch.setattr(own, "_play", skipping)
    with pytest.raises(Refusal) as refused:
        measure("W2", ["dual"], 2, lambda *_: None, apart=False)
    assert refused.value.code is Code.INTERNAL


@pytest.mark.usefixtures("small")
def test_memory_and_the_first_round_are_those_of_a_process() -> None:
    found = own.alone("W1", "convolution")
    assert found["peak_mb"] > 50
    assert found["first_round_seconds"] > 0
    with pytest.raises(Refusal) as refused:
        own._alone("W1", "no such engine")
    assert refused.value.code is Code.PROCESS_FAILED


def test_the_command_prints_rows_with_the_keys_of_the_contract(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.bench.simulate_works.WORKS", SMALL)
    monkeypatch.setattr(own, "WORKS", SMALL)
    words = ["simulate", "--work", "W2", "--repeats", "1", "--no-memory", "--json"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout.splitlines()[-1])
    assert [row["engine"] for row in found["rows"]] == [BARE, "dual", "convolution", "loop"]
    assert all(row.keys() >= KEYS for row in found["rows"])
    assert json.loads((tmp_path / "out" / "rows.json").read_text())["rows"] == found["rows"]
    assert CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")]).exit_code == 3
    assert CliRunner().invoke(app, ["simulate", "--work", "W3"]).exit_code == 3
    assert "times bare" in CliRunner().invoke(app, words[:-1]).stdout

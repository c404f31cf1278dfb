"""Measurements of private steps: all ways do the same work, and a row says how it came about."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from common.errors import Code, Refusal
from common.privacy.clipping.validate import validate
from simulations.bench import privacy as own
from simulations.bench.door import app
from simulations.bench.privacy import PrivacyRow
from simulations.bench.privacy_chart import draw
from simulations.bench.privacy_models import SUBJECTS, Subject
from simulations.bench.privacy_steps import ENGINES, make


@pytest.fixture(autouse=True)
def few_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "SUBJECTS", {name: replace(each, records=6) for name, each in SUBJECTS.items()})


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["privacy", *words])
    return done.exit_code, done.stdout


def test_the_models_are_those_of_the_documents_and_may_be_trained_privately() -> None:
    sizes = {name: sum(p.numel() for p in subject.model().parameters()) for name, subject in SUBJECTS.items()}
    assert sizes == {"cnn": 26_010, "resnet": 175_066, "transformer": 534_282}
    for subject in SUBJECTS.values():
        validate(subject.model(), subject.probe.shape, tokens=subject.probe.tokens)


def test_a_model_has_the_same_weights_each_time_and_leaves_the_seed_of_torch_alone() -> None:
    state = torch.get_rng_state()
    first, second = (SUBJECTS["cnn"].model().state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ENGINES)
def test_every_way_changes_the_model_and_private_ones_add_noise(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: do what is measured. Must not: measure a step that does nothing."""
    subject = replace(SUBJECTS["cnn"], records=6)
    ends = []
    for _ in range(2):
        model = subject.model()
        monkeypatch.setattr(Subject, "model", lambda _, model=model: model)
        before = torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])
        make(subject, name, 3)()
        monkeypatch.undo()
        ends.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]) - before)
    assert all(bool(end.any()) for end in ends)
    assert torch.equal(*ends) is (name == "sgd")


def test_the_command_prints_rows_with_the_keys_of_the_contract(tmp_path) -> None:
    words = ["--model", "cnn", "--engine", "bk", "--engine", "opacus-hooks", "--repeats", "2", "--no-memory"]
    code, printed = run(*words, "--out", str(tmp_path / "out"), "--json")
    assert code == 0
    found = json.loads(printed.splitlines()[-1])
    assert [(row["model"], row["engine"]) for row in found["rows"]] == [
        ("cnn", "sgd"), ("cnn", "bk"), ("cnn", "opacus-hooks")
    ]  # fmt: skip
    for row in found["rows"]:
        assert {"model", "engine", "cpu_seconds", "ratio", "memory_ratio"} <= row.keys()
        assert row["cpu_seconds"] > 0
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    assert found["rows"][0]["ratio"] == 1.0
    assert json.loads((tmp_path / "out" / "rows.json").read_text())["rows"] == found["rows"]
    assert ElementTree.fromstring((tmp_path / "out" / "privacy.svg").read_text()).tag.endswith("svg")
    assert run(*words, "--out", str(tmp_path / "out"))[0] == 3


def test_an_unknown_model_or_engine_is_refused() -> None:
    assert run("--model", "crn")[0] == 3
    assert run("--engine", "ghost")[0] == 3


def test_memory_is_what_a_process_of_its_own_grew_by() -> None:
    assert own._grown("cnn", "bk", 24) > 0
    with pytest.raises(Refusal) as refused:
        own._grown("cnn", "no such engine", None)
    assert refused.value.code is Code.PROCESS_FAILED


def test_a_row_compares_memory_with_that_of_plain_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own, "_grown", lambda model, engine, records: {"sgd": 10.0, "bk": 5.0}[engine])
    plain, private = own.measure("cnn", ["bk"], 1, lambda *_: None, memory=True)
    assert (plain.memory_ratio, private.memory_ratio) == (1.0, 0.5)


def test_the_figure_names_every_engine_and_its_ratio() -> None:
    row = PrivacyRow(
        model="cnn", engine="bk", cpu_seconds=0.03, ratio=1.31, ratio_low=1.3, ratio_high=1.4, memory_mb=40.0,
        memory_ratio=0.9, records=64, repeats=15,
    )  # fmt: skip
    picture = draw([row, replace(row, engine="opacus-hooks", ratio=1.8, ratio_high=3.2, memory_ratio=None)])
    for told in ("1.31", "1.80", "0.9 ×", "opacus-hooks", "3.5 ×", "28x28"):
        assert told in picture

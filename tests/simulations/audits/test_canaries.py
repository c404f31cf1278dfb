"""The canary audit of whole runs: an honest one passes, one without noise fails, no power is said to be none."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import client.guard
import simulations.audits.canaries
import simulations.report.attacks
from common.errors import Code, Refusal
from simulations.audits.canaries import audit
from simulations.audits.canary_scores import by_rounds
from simulations.audits.door import app
from simulations.audits.runs import read_run
from simulations.report.page import build
from tests.simulations.attacked import CANARIES, attacked

METRICS = {
    "epsilon_lower_bound", "epsilon_lower_bound_gaussian", "epsilon_without_noise", "mechanism_epsilon_lower_bound",
}  # fmt: skip


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attacked(tmp_path_factory.mktemp("planted"), CANARIES)


@pytest.fixture(scope="module")
def found(planted: Path) -> dict[str, Any]:
    """What the audit says of it."""
    return audit(read_run(planted))


@pytest.fixture
def run(planted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(planted, tmp_path / "run"))


def weakened(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Guards that add less noise to training sums than they charge for."""
    real = client.guard.integer_noise

    def noise(plan: Any, entropy: Any) -> Any:
        weak = replace(plan, noise_multiplier=factor * plan.noise_multiplier) if plan.purpose == "train" else plan
        return real(weak, entropy)

    monkeypatch.setattr(client.guard, "integer_noise", noise)


def call(*words: str) -> tuple[int, Any]:
    outcome = CliRunner().invoke(app, [*words, "--json"])
    return outcome.exit_code, json.loads(outcome.stdout.splitlines()[-1])


def test_an_honest_run_passes_and_the_audit_shows_that_it_could_have_failed(found: dict[str, Any]):
    main, bare = found["metrics"]["epsilon_lower_bound"], found["metrics"]["epsilon_without_noise"]
    assert found["metrics"].keys() == METRICS
    assert found["verdict"] == "PASS"
    assert main["value"] <= main["tolerance"] == found["claimed"] < 1
    assert bare["value"] > found["claimed"], "without noise the canaries would have been seen"
    assert found["claimed"] < main["most"] <= bare["value"]
    assert (main["low"], main["high"]) == (main["value"], None)
    assert found["canaries"] == 200
    assert 70 < found["members"] < 130
    json.dumps(found, allow_nan=False)


def test_a_run_whose_sites_add_no_noise_worth_the_name_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Must: prove it from the run's own models. Must not: be fooled by ledgers, which are in order."""
    weakened(monkeypatch, 0.02)
    broken = attacked(tmp_path, CANARIES)
    monkeypatch.undo()
    found = audit(read_run(broken))
    main = found["metrics"]["epsilon_lower_bound"]
    assert (found["verdict"], main["verdict"]) == ("FAIL", "FAIL")
    assert main["value"] > found["claimed"]
    assert "the promise does not hold" in found["reason"]
    assert found["metrics"]["mechanism_epsilon_lower_bound"]["verdict"] == "PASS", "on this machine it is whole again"


def test_a_mechanism_with_a_fifth_of_its_noise_fails_on_the_run_s_own_plan(run: Path, monkeypatch: pytest.MonkeyPatch):
    weakened(monkeypatch, 0.2)
    code, found = call("canaries", str(run))
    assert (code, found["verdict"]) == (1, "FAIL")
    assert found["metrics"]["mechanism_epsilon_lower_bound"]["verdict"] == "FAIL"
    assert "the promise does not hold" in found["reason"]


def test_too_few_canaries_have_no_power_and_the_audit_says_what_it_could_have_seen(tmp_path: Path):
    found = audit(read_run(attacked(tmp_path, "world.canaries.count=10", "job.rounds=4")))
    main = found["metrics"]["epsilon_lower_bound"]
    assert (found["verdict"], main["verdict"]) == ("INCONCLUSIVE", "INCONCLUSIVE")
    assert main["most"] <= found["claimed"]
    assert "Plant more canaries" in found["reason"]


def test_a_run_that_claims_nothing_is_inconclusive_and_shows_what_it_betrays(tmp_path: Path):
    changes = ("job.privacy.noise=replay", "job.rounds=2", CANARIES)
    found = audit(read_run(attacked(tmp_path, *changes)))
    assert found["verdict"] == "INCONCLUSIVE"
    assert found["claimed"] is None
    assert "NOISE_REPLAY" in found["reason"]


def test_the_large_part_of_canaries_is_found_where_nothing_hides_them(planted: Path):
    run = read_run(planted)
    work = simulations.audits.canaries.simulated_work(run)
    sites, history = simulations.audits.canaries.rebuilt(run.facts), simulations.audits.canaries.history_of(run, work)
    assert history is not None
    evidence = simulations.audits.canaries.Evidence(run, work, sites, history)
    bare = by_rounds(evidence, np.random.default_rng(0)).bare
    inside, outside = bare[evidence.members], bare[~evidence.members]
    assert (inside[:, None] > outside[None]).mean() > 0.95


def test_a_run_without_canaries_is_refused_with_the_way_to_plant_some(tmp_path: Path):
    bare = attacked(tmp_path, "job.rounds=1")
    code, found = call("canaries", str(bare))
    assert code == 3
    assert "none were planted" in found["refusal"]["why"]
    assert "--set world.canaries.count" in found["refusal"]["do"]


def test_a_run_that_was_no_simulation_is_refused(honest: Path):
    code, found = call("canaries", str(honest))
    assert (code, found["refusal"]["code"]) == (3, "DATA_INVALID")
    assert "only a simulated world knows" in found["refusal"]["why"]


def test_models_that_the_sites_did_not_sign_are_refused(run: Path):
    models = load_file(run / "history.safetensors")
    models["000003"] = models["000003"] + np.float32(0.1)
    save_file(models, run / "history.safetensors")
    with pytest.raises(Refusal, match="signed another model after round 3"):
        audit(read_run(run))
    (run / "history.safetensors").write_bytes(b"nothing")
    with pytest.raises(Refusal) as refused:
        audit(read_run(run))
    assert refused.value.code is Code.DATA_INVALID


def test_a_record_that_was_changed_is_not_attacked(run: Path):
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"versions": {}}))
    with pytest.raises(Refusal, match="RECORD_MISMATCH"):
        audit(read_run(run))


def test_without_its_history_only_the_released_model_speaks(run: Path):
    (run / "history.safetensors").unlink()
    found = audit(read_run(run))
    assert found["metrics"].keys() == METRICS - {"epsilon_without_noise"}
    assert found["metrics"]["epsilon_lower_bound"]["attack"] == "loss of the released model"


def test_the_result_is_kept_on_page_and_card_until_the_run_is_another(run: Path):
    code, found = call("canaries", str(run))
    assert code == 0
    told = json.loads((run / "audit.json").read_text())["canaries"]
    assert told["metrics"] == found["metrics"]
    page = (run / "report.html").read_text()
    assert "Made to be audited" in page
    assert "at least" in page
    assert "Canary audit: **PASS**" in (run / "card.md").read_text()
    build(run)
    assert json.loads((run / "audit.json").read_text())["canaries"] == told
    (run / "rounds.jsonl").write_text((run / "rounds.jsonl").read_text() + "\n")
    build(run)
    assert json.loads((run / "audit.json").read_text())["canaries"] is None


def test_a_run_that_cannot_be_written_is_refused_before_the_attack(run: Path, monkeypatch: pytest.MonkeyPatch):
    closed = SimpleNamespace(access=lambda *_: False, W_OK=os.W_OK, X_OK=os.X_OK)
    monkeypatch.setattr(simulations.report.attacks, "os", closed)
    code, found = call("canaries", str(run))
    assert (code, found["refusal"]["code"]) == (3, "FILE_UNWRITABLE")


def test_a_person_reads_the_verdict_and_why(run: Path, found: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(simulations.audits.canaries, "audit", lambda _: found)
    told = CliRunner().invoke(app, ["canaries", str(run)])
    assert told.exit_code == 0
    assert "PASS" in told.stdout
    assert "without any noise it would have seen" in " ".join(told.stdout.split())

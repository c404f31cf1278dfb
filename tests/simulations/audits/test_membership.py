"""The membership audit of whole runs: a private one passes, and one that only claims to be private is caught."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import simulations.audits.membership
from common.errors import Refusal
from simulations.audits.attack_curves import largest_auc, largest_rate
from simulations.audits.door import app
from simulations.audits.membership import audit
from simulations.audits.runs import read_run
from tests.simulations.attacked import attacked

FIGURES = {
    f"{attack}_{figure}" for attack in ("loss", "lira_offline", "lira_online")
    for figure in ("auc", "tpr_at_1_percent", "tpr_at_0.1_percent")
}  # fmt: skip


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attacked(tmp_path_factory.mktemp("private"), "job.privacy.epsilon=4.0", data="clinics")


@pytest.fixture(scope="module")
def told(private: Path) -> dict[str, Any]:
    """What four shadow models show of it."""
    return audit(read_run(private), 4)


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A large model on few records without privacy: it knows its members by heart."""
    changes = (
        'job.privacy={"mode" = "none"}', "job.model.name=mlp", "job.model.settings.hidden=[64]", "job.rounds=3",
        "job.training.optimizer=adam", "job.training.local_steps=150", "job.training.learning_rate=0.03",
        "job.aggregation.strategy=fedavg", "job.aggregation.bits=32", "job.aggregation.bound=8.0",
        "job.aggregation.quorum=2", "world.unmaskers=2", "world.partition.sites=2", "world.partition.minimum=100",
    )  # fmt: skip
    return attacked(tmp_path_factory.mktemp("overfitted"), *changes, data="clinics", private=False)


def test_a_private_run_passes_and_says_what_its_claim_allows(private: Path):
    found = audit(read_run(private), 8)
    assert found["metrics"].keys() == FIGURES
    assert found["verdict"] == "PASS"
    area, rate = found["metrics"]["loss_auc"], found["metrics"]["lira_online_tpr_at_1_percent"]
    assert area["tolerance"] == largest_auc(found["claimed"], found["delta"])
    assert rate["tolerance"] == largest_rate(0.01, found["claimed"], found["delta"])
    assert 0.3 < area["low"] <= area["value"] <= area["high"] < 0.7
    assert found["members"] + found["others"] == 442
    json.dumps(found, allow_nan=False)


def test_a_rate_that_too_few_records_can_show_is_not_judged(told: dict[str, Any]):
    found = told["metrics"]["loss_tpr_at_0.1_percent"]
    assert (found["tolerance"], found["verdict"]) == (None, "INCONCLUSIVE")
    assert "1000 could" in found["reason"]


def test_the_same_audit_twice_gives_the_same_figures(private: Path, told: dict[str, Any]):
    assert audit(read_run(private), 4) == told


def test_a_run_without_privacy_is_seen_through_and_claims_nothing(overfitted: Path):
    found = audit(read_run(overfitted), 8)
    assert found["verdict"] == "INCONCLUSIVE"
    assert found["reason"] == "the run claims no privacy"
    assert found["metrics"]["lira_online_auc"]["low"] > 0.5


def test_scores_beyond_what_a_claim_allows_fail(private: Path, monkeypatch: pytest.MonkeyPatch):
    """Must: fail where an attack knows all members, whatever the ledgers say."""
    real = simulations.audits.membership.RECORDS

    def perfect(*given: Any) -> Any:
        scores = real.attack(*given)
        members, others = scores["loss"]
        return {**scores, "loss": (np.ones_like(members), np.zeros_like(others))}

    monkeypatch.setattr(simulations.audits.membership, "RECORDS", replace(real, attack=perfect))
    found = audit(read_run(private), 4)
    assert found["verdict"] == "FAIL"
    assert {found["metrics"][f"loss_{name}"]["verdict"] for name in ("auc", "tpr_at_1_percent")} == {"FAIL"}
    assert "100.0 %" in found["reason"]


def test_the_command_keeps_its_result_and_exits_by_its_verdict(private: Path):
    outcome = CliRunner().invoke(app, ["membership", str(private), "--shadows", "4", "--json"])
    found: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    assert (outcome.exit_code, found["verdict"]) == (0, "PASS")
    assert json.loads((private / "audit.json").read_text())["membership"]["metrics"] == found["metrics"]
    assert "Members found, by false alarms" in (private / "report.html").read_text()
    assert "Membership audit: **PASS**" in (private / "card.md").read_text()


@pytest.mark.parametrize("shadows", [0, 3, 10**6])
def test_a_number_of_shadows_that_gives_nothing_is_refused(private: Path, shadows: int):
    with pytest.raises(Refusal):
        audit(read_run(private), shadows)


def test_a_run_that_was_no_simulation_is_refused(honest: Path):
    with pytest.raises(Refusal, match="only a simulated world knows"):
        audit(read_run(honest))

"""The canary audit of runs that protect whole sites: honest ones pass, weak noise is proven, what cannot be is said."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import client.private_step
import server.site_level
from common.errors import Refusal
from simulations.audits.canaries import audit
from simulations.audits.claimed import simulated_work
from simulations.audits.door import app
from simulations.audits.history import history_of
from simulations.audits.runs import Run, read_run
from simulations.audits.site_scores import SiteEvidence, by_site_rounds
from simulations.audits.site_updates import Turn, bench_of, given
from simulations.rebuilt import rebuilt
from tests.simulations.attacked import attacked_sites
from tests.simulations.audits.test_site_games import weaken

METRICS = {
    "epsilon_lower_bound", "epsilon_lower_bound_gaussian", "epsilon_without_noise", "mechanism_epsilon_lower_bound",
}  # fmt: skip


def evidence_of(run: Run) -> SiteEvidence:
    work = simulated_work(run)
    history = history_of(run, work)
    assert history is not None
    return SiteEvidence(run, work, rebuilt(run.facts), history)


@pytest.mark.parametrize("name", ["sites", "turns"])
def test_an_honest_run_passes_and_the_audit_shows_that_it_could_have_failed(
    name: str, request: pytest.FixtureRequest
) -> None:
    found = audit(read_run(request.getfixturevalue(name)))
    main = found["metrics"]["epsilon_lower_bound"]
    assert found["metrics"].keys() == METRICS
    assert (found["verdict"], found["unit"], found["canaries"]) == ("PASS", "site", 48)
    assert main["value"] <= main["tolerance"] == found["claimed"] <= 1 < main["most"]
    assert 12 < found["members"] < 36
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("name", ["sites", "turns"])
def test_without_noise_every_coin_is_read_from_the_steps_of_the_rounds(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Must: know what each site gives to the last bit that a coordinator adds up, or an attack would prove nothing."""
    evidence = evidence_of(read_run(request.getfixturevalue(name)))
    bare, inside = by_site_rounds(evidence).bare, evidence.members
    assert np.allclose(bare, inside - 0.5, atol=1e-3)


def test_what_known_sites_give_is_all_that_is_in_the_steps_but_noise(sites: Path) -> None:
    """Must: leave noise of the planned size, and nothing else, of a round whose coins are known."""
    evidence = evidence_of(read_run(sites))
    work, (start, end, *_) = evidence.work, evidence.models
    ids, bench = {entry.name: entry.id for entry in work.manifest.sites}, bench_of(work)
    known = sum(given(bench, work, site.train, Turn(ids[site.name], 1), start) for site in evidence.sites)
    rest = (end.astype(np.float64) - start) * len(evidence.sites) / work.training.clip - known
    assert rest.std() == pytest.approx(work.training.sum_deviation, rel=0.1)


def test_a_run_whose_coordinator_adds_no_noise_worth_the_name_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must: prove it from the run's own models. Must not: be fooled by ledgers, which are in order."""
    real = server.site_level.integer_noise
    monkeypatch.setattr(
        server.site_level, "integer_noise",
        lambda plan, entropy: real(replace(plan, noise_multiplier=0.05 * plan.noise_multiplier), entropy),
    )  # fmt: skip
    broken = attacked_sites(tmp_path, "M3", 48)
    monkeypatch.undo()
    found = audit(read_run(broken))
    main = found["metrics"]["epsilon_lower_bound"]
    assert (found["verdict"], main["verdict"]) == ("FAIL", "FAIL")
    assert main["value"] > found["claimed"]
    assert "the promise does not hold" in found["reason"]
    assert found["metrics"]["mechanism_epsilon_lower_bound"]["verdict"] == "PASS", "on this machine it is whole again"


def test_a_mechanism_with_a_fifth_of_its_noise_fails_and_the_page_draws_it_beyond_the_claim(
    sites: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(sites, tmp_path / "run")
    weaken(monkeypatch, 0.2)
    outcome = CliRunner().invoke(app, ["canaries", str(run), "--json"])
    found = json.loads(outcome.stdout.splitlines()[-1])
    assert (outcome.exit_code, found["verdict"]) == (1, "FAIL")
    assert found["metrics"]["mechanism_epsilon_lower_bound"]["verdict"] == "FAIL"
    page = (run / "report.html").read_text()
    assert "whole sites were made up besides the others" in page
    for told in ("Canary sites in the run", "Canary sites against its mechanism", "claimed 1.00", "at least "):
        assert told in page
    assert json.loads((run / "audit.json").read_text())["canaries"]["metrics"] == found["metrics"]


def test_without_its_history_only_the_released_model_speaks(sites: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sites, tmp_path / "run")
    (run / "history.safetensors").unlink()
    found = audit(read_run(run))
    assert found["metrics"].keys() == METRICS - {"epsilon_without_noise"}
    assert found["metrics"]["epsilon_lower_bound"]["attack"] == "loss of the released model"


def test_both_layers_are_tried_each_against_its_own_claim(layered: Path) -> None:
    """Must: hold noise for records against the claim for records. Must not: need canary sites, which cannot be here."""
    found = audit(read_run(layered))
    outer, inner = (found["metrics"][f"{name}_epsilon_lower_bound"] for name in ("mechanism", "local"))
    assert found["verdict"] == outer["verdict"] == inner["verdict"] == "PASS"
    assert outer["value"] <= outer["tolerance"] <= 1 < outer["most"]
    assert outer["tolerance"] < inner["tolerance"] <= 2 < inner["most"]
    assert 0 < inner["value"] <= inner["tolerance"]
    assert "canary sites cannot be planted in such a run" in found["reason"]
    assert (found["canaries"], found["members"]) == (0, 0)


def test_noise_for_records_that_is_a_fifth_of_what_it_should_be_is_caught(
    layered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    normals = client.private_step.normals
    monkeypatch.setattr(client.private_step, "normals", lambda *given: 0.2 * normals(*given))
    found = audit(read_run(layered))
    assert found["verdict"] == found["metrics"]["local_epsilon_lower_bound"]["verdict"] == "FAIL"
    assert found["metrics"]["mechanism_epsilon_lower_bound"]["verdict"] == "PASS"


def test_models_that_the_sites_did_not_sign_are_refused(sites: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sites, tmp_path / "run")
    (run / "history.safetensors").write_bytes(b"nothing")
    with pytest.raises(Refusal):
        audit(read_run(run))

"""A run without masks and ledgers: what was planned is told, nothing is ever claimed, and a changed record fails."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from common.errors import Code, Refusal
from common.identity import Signer
from common.privacy.spending import spending
from common.statement import signed, statement_of
from common.work import whole_run, work_of
from deploy.provision import FederationFolder
from simulations.audits.door import app
from simulations.audits.privacy import audit
from simulations.audits.record import Anchors
from simulations.audits.runs import read_run
from simulations.world import simulate
from tests.simulations.recorded import MANIFEST, edit, edit_rounds
from tests.simulations.simulated import exact_run
from tests.worlds import scenario


def changed(run: Path, change: Callable[[dict[str, Any]], object]) -> set[str]:
    edit(run, change)
    return set(audit(read_run(run))["problems"])


def resigned(run: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """The audit of a record that was changed by somebody who signs anew with a key of his own."""
    edit(run, change)
    facts, key = json.loads((run / "run.json").read_text()), Signer.generate()
    facts["world"]["signed_by"] = key.public.hex()
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    statement = statement_of(facts, rows, (run / "model.safetensors").read_bytes())
    (run / "run.json").write_text(json.dumps(facts | signed(statement, key)))
    return audit(read_run(run))


@pytest.mark.parametrize("size", ["few", "many"])
def test_nothing_is_verified_and_what_was_planned_is_told(tmp_path: Path, size: str) -> None:
    """Must: be INCONCLUSIVE. Must not: hold a figure where readers look for an audited one."""
    found = audit(read_run(exact_run(tmp_path / "run", size)))
    assert (found["verdict"], found["verified"], found["problems"]) == ("INCONCLUSIVE", False, [])
    assert all(found[name] is None for name in ("epsilon", "this_run", "promised", "limit", "manifest"))
    assert found["sites"] == []
    planned = found["planned"]
    assert 0 < planned["epsilon"] <= 8
    assert (planned["unit"], planned["mode"]) == ("record", "M2")
    assert "Planned: a deployment of this job would charge a site" in planned["sentence"]
    assert "Nothing was charged and nothing was masked" in planned["sentence"]
    assert "no test of secure aggregation" in planned["sentence"]
    assert found["claims"] == [planned["sentence"], *planned["conditions"]]
    assert any("honest sites is in every sum" in one for one in found["claims"])
    assert not any("ledger" in one for one in found["claims"])


def test_the_planned_figure_is_what_a_deployment_of_the_same_job_charges(tmp_path: Path) -> None:
    """Held against a run with masks and ledgers, whose sites took part in every round."""
    planned = json.loads((exact_run(tmp_path / "run") / "run.json").read_text())["planned"]
    made = scenario("M2", {"job.privacy.noise": "system"})
    done = simulate(made, tmp_path / "world")
    assert isinstance(done.federation, FederationFolder)
    assert planned["epsilon"] == pytest.approx(max(done.state.epsilon.values()), abs=1e-3)
    spent = spending(whole_run(work_of(done.work.job, done.work.roster)), 1e-5)
    assert planned["epsilon"] == pytest.approx(spent.epsilon)


def test_whole_sites_and_no_privacy_are_planned_in_their_own_words(tmp_path: Path) -> None:
    none = audit(read_run(exact_run(tmp_path / "none", mode="none")))
    assert none["verdict"] == "INCONCLUSIVE"
    assert (none["planned"]["epsilon"], none["planned"]["unit"]) == (None, None)
    assert "would claim no differential privacy, because a release had no noise" in none["claims"][0]
    replayed = audit(read_run(exact_run(tmp_path / "replayed", noise="replay")))
    assert (replayed["verdict"], replayed["problems"], replayed["planned"]) == ("FAIL", ["NOISE_REPLAY"], None)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda facts: facts["planned"].update(epsilon=0.1), "JOB_MISMATCH"),
        (lambda facts: facts["planned"].update(sentence="(0.1, 1e-9)-private, audited"), "RECORD_MISMATCH"),
        (lambda facts: facts.update(population=4), "RECORD_MISMATCH"),
        (lambda facts: facts.update(accuracy=0.99), "RECORD_MISMATCH"),
        (lambda facts: facts["world"].update(engine="warp"), "RECORD_MISMATCH"),
        (lambda facts: facts["world"].pop("signed_by"), "RECORD_UNSIGNED"),
        (lambda facts: facts.pop("signature"), "RECORD_UNSIGNED"),
        (lambda facts: facts["job"].update(rounds=9), "ROUNDS_MISMATCH"),
        (lambda facts: facts["heads"].update({"clinic-a": {"head": "00" * 32, "epsilon": 0.1}}), "RECORD_MISMATCH"),
    ],
)
def test_a_changed_record_fails_and_states_nothing(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    run = exact_run(tmp_path / "run")
    assert problem in changed(run, change)
    found = audit(read_run(run))
    assert (found["verdict"], found["planned"], found["claims"]) == ("FAIL", None, [])


def test_words_and_figures_of_a_liar_who_signs_anew_are_not_repeated(tmp_path: Path) -> None:
    """The key is made for the run, so anybody can sign; the audit computes what was planned from the job."""

    def boast(facts: dict[str, Any]) -> None:
        facts["planned"]["sentence"] = "Audited: epsilon 0.1."

    found = resigned(exact_run(tmp_path / "words"), boast)
    assert found["problems"] == []
    assert "Audited" not in json.dumps(found)

    found = resigned(exact_run(tmp_path / "figure"), lambda facts: facts["planned"].update(epsilon=0.1))
    assert found["problems"] == ["JOB_MISMATCH"]


def test_sites_beyond_the_population_are_found(tmp_path: Path) -> None:
    run = exact_run(tmp_path / "run")
    edit_rounds(run, lambda rows: rows[0].update(sites=["clinic-a", "clinic-z", "clinic-b"]))
    assert {"ROUNDS_MISMATCH"} <= set(audit(read_run(run))["problems"])


def test_the_auditor_s_own_manifest_and_heads_are_not_in_such_a_run(tmp_path: Path) -> None:
    run = read_run(exact_run(tmp_path / "run"))
    assert audit(run, Anchors(manifest=MANIFEST))["problems"] == ["MANIFEST_MISMATCH"]
    assert audit(run, Anchors(heads={"clinic-a": "00" * 32}))["problems"] == ["HEAD_MISMATCH"]


@pytest.mark.parametrize("name", ["manifest", "population", "planned", "world"])
def test_a_record_between_both_kinds_is_refused(tmp_path: Path, name: str) -> None:
    """With a manifest and a population, or with neither: nobody could say what it is."""
    run = exact_run(tmp_path / "run")
    other = {"sites": [{"name": "a", "identity": "00"}]} if name == "manifest" else None
    edit(run, lambda facts: facts.update({name: other}))
    with pytest.raises(Refusal, match="either a manifest, or a population") as refused:
        read_run(run)
    assert refused.value.code is Code.DATA_INVALID


def test_the_command_ends_as_inconclusive_in_both_forms(tmp_path: Path) -> None:
    run = str(exact_run(tmp_path / "run", "many"))
    told = CliRunner().invoke(app, ["privacy", run, "--json"])
    assert told.exit_code == 2, told.output
    found = json.loads(told.stdout.splitlines()[-1])
    assert (found["verified"], found["sites"]) == (False, [])
    shown = CliRunner().invoke(app, ["privacy", run])
    assert shown.exit_code == 2
    assert "INCONCLUSIVE" in shown.output
    assert "There is no manifest to compare" in shown.output


@pytest.mark.parametrize("attack", ["canaries", "membership", "inversion"])
def test_attacks_are_refused_in_words(tmp_path: Path, attack: str) -> None:
    told = CliRunner().invoke(app, [attack, str(exact_run(tmp_path / "run")), "--json"])
    assert told.exit_code == 3
    refusal = json.loads(told.stdout.splitlines()[-1])["refusal"]
    assert refusal["code"] == "DATA_INVALID"
    assert attack == "canaries" or "masked" in refusal["do"]

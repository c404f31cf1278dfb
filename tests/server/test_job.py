"""job.toml: settings that cannot live together are refused before any site is asked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner

from common.config import plain
from common.errors import Code, Refusal
from common.job import Job
from common.secagg.manifest import Manifest
from server.door import app
from server.job import check, prepared, read_job
from tests.secagg_federation import RULES, manifest_of
from tests.worlds import close, desk_of, scenario

MANIFEST = manifest_of(3)


def refusal(mode: str, changes: dict[str, Any], manifest: Manifest = MANIFEST) -> Refusal:
    with pytest.raises(Refusal) as refused:
        prepared(scenario(mode, changes).job, manifest)
    assert all((refused.value.what, refused.value.why, refused.value.do))
    return refused.value


@pytest.mark.parametrize("mode", ["none", "M1", "M2"])
def test_a_job_that_fits_the_federation_is_prepared(mode: str) -> None:
    job = scenario(mode).job
    check(prepared(job, MANIFEST), MANIFEST)
    assert prepared(prepared(job, MANIFEST), MANIFEST) == prepared(job, MANIFEST)


def test_what_the_strategy_changes_in_local_training_is_in_the_job_that_sites_see() -> None:
    prox = scenario("none", {"job.aggregation.strategy": "fedprox", "job.aggregation.settings": {"pull": 0.3}}).job
    assert prepared(prox, MANIFEST).training.proximal == 0.3
    once = {"job.aggregation.strategy": "fedsgd", "job.training.local_steps": 1}
    assert prepared(scenario("none", once).job, MANIFEST).training.local_steps == 1


CONFLICTS: list[tuple[str, dict[str, Any], Code, str]] = [
    ("M2", {"job.aggregation.quorum": 4}, Code.JOB_INVALID, "2 to 3 sites"),
    ("M2", {"job.aggregation.session_rounds": 65}, Code.JOB_INVALID, "64 aggregations"),
    ("M2", {"job.aggregation.bits": 24}, Code.JOB_INVALID, "follow from the noise"),
    ("M2", {"job.aggregation.bound": 1.0}, Code.JOB_INVALID, "follow from the noise"),
    ("M2", {"job.training.local_steps": 2, "job.aggregation.strategy": "fedavg"}, Code.JOB_INVALID, "own"),
    ("M2", {"job.training.optimizer": "adam"}, Code.JOB_INVALID, "nothing would use it"),
    ("M2", {"job.training.optimizer_settings": {"weight_decay": 0.1}}, Code.JOB_INVALID, "nothing would use it"),
    ("M2", {"job.privacy.colluding": 2}, Code.JOB_INVALID, "no honest site"),
    ("M2", {"job.privacy.delta": 0.009}, Code.JOB_INVALID, "publish one of them"),
    ("none", {"job.aggregation.strategy": "fedavgg"}, Code.CONFIG_INVALID, "'fedavg'"),
    ("none", {"job.aggregation.settings": {"rat": 1.0}}, Code.CONFIG_INVALID, "'rate'"),
    ("none", {"job.aggregation.strategy": "fedprox"}, Code.CONFIG_INVALID, "pull"),
    ("none", {"job.aggregation.strategy": "fedsgd"}, Code.JOB_INVALID, "uses 1, whatever the job says"),
    (
        "none",
        {
            "job.aggregation.strategy": "fedprox",
            "job.aggregation.settings": {"pull": 0.3},
            "job.training.proximal": 0.2,
        },
        Code.JOB_INVALID,
        "uses 0.3, whatever",
    ),
    ("none", {"job.aggregation.groups": 2}, Code.JOB_INVALID, "smaller sums would be shown for nothing"),
    (
        "none",
        {"job.aggregation.strategy": "median", "job.aggregation.settings": {"liars": 1}},
        Code.JOB_INVALID,
        "so 3 are needed",
    ),
    (
        "none",
        {"job.aggregation.strategy": "median", "job.aggregation.settings": {"liars": 1}, "job.aggregation.groups": 3},
        Code.JOB_INVALID,
        "the manifest names 3 sites",
    ),
    (
        "none",
        {
            "job.aggregation.strategy": "krum",
            "job.aggregation.settings": {"liars": 1, "pre": ["bucketing"], "bucket": 2},
            "job.aggregation.groups": 8,
        },
        Code.JOB_INVALID,
        "so 9 are needed",
    ),
    (
        "none",
        {
            "job.aggregation.strategy": "mda",
            "job.aggregation.settings": {"liars": 1},
            "job.aggregation.groups": 21,
            "job.aggregation.session_rounds": 64,
        },
        Code.JOB_INVALID,
        "so 20 are the most",
    ),
    (
        "none",
        {"job.aggregation.strategy": "median", "job.aggregation.settings": {"liars": 1}, "job.aggregation.groups": 2},
        Code.JOB_INVALID,
        "the liars win a draw with a chance of 1 in each round",
    ),
    ("none", {"job.aggregation.groups": 64, "job.aggregation.session_rounds": 16}, Code.JOB_INVALID, "64 numbers"),
    ("none", {"job.aggregation.cohort": 1}, Code.CONFIG_INVALID, "cohort"),
    ("none", {"job.aggregation.cohort": 4}, Code.JOB_INVALID, "there are 3 sites"),
    ("none", {"job.aggregation.site_rate": 0.5}, Code.JOB_INVALID, "1.5 sites"),
    ("none", {"job.aggregation.site_rate": 1.5}, Code.CONFIG_INVALID, "site_rate"),
    ("none", {"job.aggregation.cohort": 2, "job.aggregation.site_rate": 1.0}, Code.CONFIG_INVALID, "one of them"),
    ("none", {"job.aggregation.strategy": "median"}, Code.CONFIG_INVALID, "liars"),
    ("none", {"job.model.name": "logstic"}, Code.CONFIG_INVALID, "'logistic'"),
    ("none", {"job.model.settings": {"width": 3}}, Code.CONFIG_INVALID, "width"),
    ("none", {"job.model.name": "cnn"}, Code.CONFIG_INVALID, ""),
    ("none", {"job.evaluation.bins": 3}, Code.CONFIG_INVALID, "even number"),
]


@pytest.mark.parametrize(("mode", "changes", "code", "said"), CONFLICTS, ids=[str(row[1]) for row in CONFLICTS])
def test_settings_that_cannot_live_together_are_refused(
    mode: str, changes: dict[str, Any], code: Code, said: str
) -> None:
    found = refusal(mode, changes)
    assert found.code is code
    assert said in str(found)


@pytest.mark.parametrize("missing", ["bits", "bound"])
def test_range_mode_needs_ring_and_bound(missing: str) -> None:
    job = scenario("none").job
    with pytest.raises(Refusal, match="Give both"):
        check(replace(job, aggregation=replace(job.aggregation, **{missing: None})), MANIFEST)


def test_a_quorum_below_the_manifest_s_is_refused() -> None:
    found = refusal("none", {}, manifest_of(3, replace(RULES, quorum_min=3)))
    assert "3 to 3 sites" in found.why


def test_a_job_is_read_from_its_file(tmp_path: Path) -> None:
    job: Job = scenario("M1").job
    path = tmp_path / "job.toml"
    path.write_text(tomli_w.dumps(_dense(plain(job))))
    assert read_job(path, MANIFEST) == prepared(job, MANIFEST)
    path.write_text(path.read_text().replace('name = "clinics"', 'nam = "clinics"'))
    with pytest.raises(Refusal, match="the nearest is 'name'"):
        read_job(path, MANIFEST)


def test_a_job_is_checked_against_the_folder_that_other_commands_are_given(tmp_path: Path) -> None:
    """Must not: take the coordinator's folder for the federation's, or call its manifest missing."""
    made = desk_of(scenario("M2"), tmp_path / "world")
    close(made)
    root = made.federation.root
    path = tmp_path / "job.toml"
    path.write_text(tomli_w.dumps(_dense(plain(scenario("M2").job))))
    told = CliRunner().invoke(app, ["check", str(path), "--federation", str(root), "--json"])
    assert told.exit_code == 0
    assert json.loads(told.stdout)["manifest"] == made.federation.manifest.digest.hex()
    told = CliRunner().invoke(app, ["check", str(path), "--federation", str(root / "coordinator"), "--json"])
    assert told.exit_code == 3
    assert "the folder that `fed up` is given" in json.loads(told.stdout)["refusal"]["do"]


def test_the_check_of_a_job_that_votes_says_what_is_promised_and_what_is_not(tmp_path: Path) -> None:
    voting = {
        "world.partition.sites": 6,
        "job.aggregation.strategy": "geometric-median",
        "job.aggregation.settings": {"liars": 1, "pre": ["arc", "nnm"]},
        "job.aggregation.groups": 3,
    }
    made = desk_of(scenario("none", voting), tmp_path / "world")
    close(made)
    path = tmp_path / "job.toml"
    path.write_text(tomli_w.dumps(_dense(plain(scenario("none", voting).job))))
    told = CliRunner().invoke(app, ["check", str(path), "--federation", str(made.federation.root), "--json"])
    said = json.loads(told.stdout)
    assert said["lying_sites"].startswith("6 sites in 3 groups: 1 lying site is outvoted")
    assert "Backdoors stay open" in said["limits"]


def _dense(value: Any) -> Any:
    """TOML has no null: what is None is left out."""
    if isinstance(value, dict):
        return {name: _dense(inner) for name, inner in value.items() if inner is not None}
    return [_dense(inner) for inner in value] if isinstance(value, list) else value

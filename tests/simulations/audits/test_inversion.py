"""The inversion audit of whole runs: never PASS, and records shown beside what is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import simulations.audits.inversion
from common.errors import Refusal
from simulations.audits.door import app
from simulations.audits.inversion import audit
from simulations.audits.runs import read_run
from simulations.rebuilt import rebuilt
from tests.simulations.attacked import attacked

NONE = (
    'job.privacy={"mode" = "none"}', "job.aggregation.strategy=fedavg", "job.aggregation.bits=24",
    "job.aggregation.bound=4.0", "job.rounds=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attacked(tmp_path_factory.mktemp("images"), "job.rounds=2")


@pytest.fixture(scope="module")
def rebuilt_images(images: Path) -> dict[str, Any]:
    """What the audit makes of two records of them."""
    return audit(read_run(images), 2)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attacked(tmp_path_factory.mktemp("tables"), "job.rounds=2", data="clinics")


def test_images_come_back_without_protection_and_not_through_the_mechanism(rebuilt_images: dict[str, Any]):
    found, metrics = rebuilt_images, rebuilt_images["metrics"]
    assert metrics["ssim_without_dp"]["low"] > 0.9
    assert metrics["psnr_without_dp"]["low"] > 30
    assert metrics["ssim_with_dp"]["value"] < 0.4
    assert (found["verdict"], found["protected"], found["kind"]) == ("INCONCLUSIVE", True, "image")
    assert "no evidence of differential privacy" in found["reason"]
    json.dumps(found, allow_nan=False)


def test_rows_come_back_to_the_digit_without_protection(tables: Path):
    found = audit(read_run(tables), 3)
    assert found["metrics"]["error_without_dp"]["high"] < 1e-5
    assert found["metrics"]["error_with_dp"]["value"] > 0.1
    assert found["verdict"] == "INCONCLUSIVE"
    for one in found["shown"]:
        assert one["without_dp"] == one["original"]
        assert one["with_dp"] != one["original"]
        assert one["original"].keys() == {"age", "sex", "bmi", "bp", *(f"s{i}" for i in range(1, 7))}


def test_the_records_are_training_records_of_the_run(images: Path, rebuilt_images: dict[str, Any]):
    run = read_run(images)
    held = {site.name: site.train.inputs.numpy().reshape(len(site.train), -1).round(4) for site in rebuilt(run.facts)}
    for one in rebuilt_images["shown"]:
        assert (np.abs(held[one["site"]] - np.array(one["original"])).max(1) < 1e-3).any()


def test_noise_that_is_hardly_there_fails(images: Path, monkeypatch: pytest.MonkeyPatch):
    """Must: recognise the records and say so."""
    real = simulations.audits.inversion.normals
    monkeypatch.setattr(simulations.audits.inversion, "normals", lambda *given: 1e-4 * real(*given))
    found = audit(read_run(images), 2)
    assert found["verdict"] == found["metrics"]["ssim_with_dp"]["verdict"] == "FAIL"
    assert "recognised" in found["reason"]


def test_a_run_without_noise_is_told_what_alone_hides_its_records(tmp_path: Path):
    found = audit(read_run(attacked(tmp_path, *NONE, data="clinics", private=False)), 2)
    assert (found["verdict"], found["protected"]) == ("INCONCLUSIVE", False)
    assert found["metrics"].keys() == {"error_without_dp"}
    assert "the sum it is in, and nothing else" in found["reason"]
    assert found["shown"][0]["with_dp"] is None


@pytest.mark.parametrize("name", ["images", "tables"])
def test_the_command_shows_records_on_the_page(name: str, request: pytest.FixtureRequest):
    run = request.getfixturevalue(name)
    outcome = CliRunner().invoke(app, ["inversion", str(run), "--records", "2", "--json"])
    told: dict[str, Any] = json.loads(outcome.stdout.splitlines()[-1])
    assert (outcome.exit_code, told["verdict"]) == (2, "INCONCLUSIVE")
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") == (6 if name == "images" else 0)
    assert "no evidence of differential privacy" in page
    assert "training records of a simulated world" in page
    assert "Inversion audit: **INCONCLUSIVE**" in (run / "card.md").read_text()


@pytest.mark.parametrize("records", [0, 65])
def test_a_number_of_records_out_of_range_is_refused(tables: Path, records: int):
    with pytest.raises(Refusal):
        audit(read_run(tables), records)


def test_a_run_that_was_no_simulation_is_refused(honest: Path):
    with pytest.raises(Refusal, match="only a simulated world knows"):
        audit(read_run(honest))

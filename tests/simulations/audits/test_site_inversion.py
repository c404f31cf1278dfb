"""Inversion where whole sites are protected: an update alone gives its record away, noise and sums do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import simulations.audits.site_inversion
from simulations.audits.claimed import simulated_work
from simulations.audits.door import app
from simulations.audits.inversion import audit
from simulations.audits.runs import read_run
from simulations.audits.site_inversion import Targets, views
from simulations.rebuilt import rebuilt


def test_an_update_alone_gives_its_record_away_and_neither_noise_nor_a_sum_does(sites: Path) -> None:
    found = audit(read_run(sites), 2)
    metrics = found["metrics"]
    assert (found["verdict"], found["protected"]) == ("INCONCLUSIVE", True)
    assert metrics["ssim_without_dp"]["value"] > 0.9
    assert metrics["ssim_with_dp"]["value"] < 0.5 == metrics["ssim_with_dp"]["tolerance"]
    assert metrics["ssim_in_sum"]["value"] < 0.5
    assert metrics["ssim_in_sum"]["tolerance"] is None, "nobody promised anything about the coordinator"
    assert "the coordinator sees exact sums" in found["reason"]
    assert all(len(one["in_sum"]) == 64 for one in found["shown"])


def test_where_sites_add_the_noise_no_exact_sum_is_seen(layered: Path) -> None:
    found = audit(read_run(layered), 1)
    assert found["verdict"] == "INCONCLUSIVE"
    assert "ssim_in_sum" not in found["metrics"]
    assert "in_sum" not in found["shown"][0]
    assert "exact sums" not in found["reason"]


@pytest.mark.parametrize("name", ["sites", "turns"])
def test_what_is_released_is_the_clipped_update_and_the_noise_of_one_turn(
    name: str, request: pytest.FixtureRequest
) -> None:
    """Must: count on no more noise than a turn is sure to have after all rounds, in which noise partly cancels."""
    run = read_run(request.getfixturevalue(name))
    work, held = simulated_work(run), rebuilt(run.facts)
    plan, owners = work.training, [held[0].name] * 2
    found = views(run, work, held, Targets(held[0].train.take([0, 1]), owners, [(1, "a"), (1, "b")]))
    short = [one.bare * min(1.0, plan.clip / float(np.linalg.norm(one.bare))) for one in found]
    rest = np.concatenate([one.released - clipped for one, clipped in zip(found, short, strict=True)])
    assert rest.std() == pytest.approx(plan.clip * plan.noise_multiplier, rel=0.1)
    assert np.linalg.norm(found[0].summed) <= plan.clip * len(run.rounds[0]["sites"])


def test_noise_that_is_hardly_there_fails(sites: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    normals = simulations.audits.site_inversion.normals
    monkeypatch.setattr(simulations.audits.site_inversion, "normals", lambda *given: 1e-6 * normals(*given))
    found = audit(read_run(sites), 1)
    assert (found["verdict"], found["metrics"]["ssim_with_dp"]["verdict"]) == ("FAIL", "FAIL")


def test_the_page_shows_what_the_coordinator_sees(sites: Path, tmp_path: Path) -> None:
    run = shutil.copytree(sites, tmp_path / "run")
    outcome = CliRunner().invoke(app, ["inversion", str(run), "--records", "1", "--json"])
    assert (outcome.exit_code, json.loads(outcome.stdout.splitlines()[-1])["verdict"]) == (2, "INCONCLUSIVE")
    page = (run / "report.html").read_text()
    assert "From the coordinator’s sum" in page
    assert "SSIM, from the exact sum that the coordinator sees" in page

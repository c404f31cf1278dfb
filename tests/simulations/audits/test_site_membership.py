"""Membership of whole sites: honest runs show little, noise that is not there shows who took part."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import server.site_level
from common.errors import Refusal
from simulations.audits.claimed import simulated_work
from simulations.audits.door import app
from simulations.audits.lower_bounds import clopper_pearson
from simulations.audits.membership import audit
from simulations.audits.runs import read_run
from simulations.audits.site_courses import SiteCourse
from simulations.audits.site_membership import _upright, paired
from simulations.audits.site_updates import rounds_of
from simulations.rebuilt import rebuilt
from tests.simulations.attacked import attacked_sites

FIGURES = {"site_loss_auc", "site_position_auc"}


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of mode M3 whose coordinator adds a thousandth of its noise."""
    with pytest.MonkeyPatch.context() as patch:
        real = server.site_level.integer_noise
        patch.setattr(server.site_level, "integer_noise", lambda *given: real(*given) // 1000)
        return attacked_sites(tmp_path_factory.mktemp("silent"), "M3")


def course(run: Path) -> SiteCourse:
    read = read_run(run)
    work = simulated_work(read)
    ids = {entry.name: entry.id for entry in work.manifest.sites}
    records = {ids[site.name]: site.train for site in rebuilt(read.facts)}
    return SiteCourse(work, rounds_of(read, work), records, {})


def test_an_honest_run_is_not_accused_and_the_audit_says_what_its_claim_allows(layered: Path) -> None:
    """Must not: fail an honest run, here with noise for records inside. Must: give the same figures again."""
    found = audit(read_run(layered), 12)
    assert found == audit(read_run(layered), 12)
    assert found["metrics"].keys() == FIGURES
    assert found["verdict"] in ("PASS", "INCONCLUSIVE")
    assert (found["unit"], found["members"], found["others"]) == ("site", 4, 4)
    assert found["metrics"]["site_position_auc"]["tolerance"] == pytest.approx(0.73, abs=0.01)
    json.dumps(found, allow_nan=False)


def test_sites_are_found_where_hardly_any_noise_hides_them(silent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: fail a mechanism that shows who took part: in its run, and wherever its noise is drawn again."""
    real = server.site_level.integer_noise
    monkeypatch.setattr(server.site_level, "integer_noise", lambda *given: real(*given) // 1000)
    found = audit(read_run(silent), 46)
    position = found["metrics"]["site_position_auc"]
    assert (found["verdict"], position["verdict"]) == ("FAIL", "FAIL")
    assert position["value"] == 1.0
    assert position["low"] > position["tolerance"]
    assert found["members"] == found["others"] == 20, "pairs among six sites"


def test_without_noise_the_rounds_played_again_end_in_the_run_s_own_model(silent: Path) -> None:
    """Must: be the course of the run, or what an attacker knows beforehand would be of another one."""
    again = course(silent)
    first, *_, last = again.played()
    released = course(silent).played(noise=1)[-1]
    moved = np.abs(last - first).max()
    assert np.abs(last - released).max() > 0.1 * moved, "noise hides what sites give"
    from simulations.audits.models import flat_of

    model = flat_of(read_run(silent).model or b"", again.work.layout)
    assert np.allclose(model, last, atol=0.02 * moved)


@pytest.mark.parametrize("name", ["layered", "turns"])
def test_a_site_that_is_left_out_changes_the_model_and_its_name_the_noise(
    name: str, request: pytest.FixtureRequest
) -> None:
    played = course(request.getfixturevalue(name))
    everybody, without, noisy = played.played(), played.played([1]), played.played(noise=1)
    assert len(everybody) == len(played.rounds) + 1
    assert not np.array_equal(everybody[-1], without[-1])
    assert np.array_equal(noisy[-1], played.played(noise=1)[-1])
    assert not np.array_equal(noisy[-1], played.played(noise=2)[-1])


def test_an_interval_of_pairs_is_exact_and_ties_are_no_find() -> None:
    found = paired(np.array([2.0, 1.0, 3.0, 0.0]), np.array([1.0, 1.0, 1.0, 1.0]), 0.95)
    assert found.value == 0.5
    assert (found.low, found.high) == clopper_pearson(2, 4)


def test_axes_stand_upright_and_lean_to_their_sites() -> None:
    ways = np.random.default_rng(1).normal(size=(5, 40)) + 0.5
    axes = _upright(ways)
    assert np.allclose(axes @ axes.T, np.eye(5))
    assert (np.einsum("ij,ij->i", axes, ways) > 0.5 * np.linalg.norm(ways, axis=1)).all()


def test_the_command_keeps_its_result_and_its_page_names_the_attacks(layered: Path, tmp_path: Path) -> None:
    run = shutil.copytree(layered, tmp_path / "run")
    outcome = CliRunner().invoke(app, ["membership", str(run), "--shadows", "8", "--json"])
    assert outcome.exit_code in (0, 2)
    found = json.loads(outcome.stdout.splitlines()[-1])
    assert json.loads((run / "audit.json").read_text())["membership"]["metrics"] == found["metrics"]
    page = (run / "report.html").read_text()
    assert "Position of the model" in page
    assert "share of models without a site taken for members" in page
    assert "LiRA" not in page


def test_a_run_of_too_few_sites_is_refused(layered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_run(layered)
    monkeypatch.setattr("simulations.audits.site_membership.FEWEST", 7)
    with pytest.raises(Refusal, match="only 6 sites took part"):
        audit(read, 8)

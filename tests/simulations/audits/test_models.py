"""The model of a run is audited: by the coordinator's signature, and by the parameters that sites signed for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load, save

from common.privacy.entries import Entry
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from tests.simulations.recorded import ROUNDS, problems, sign, write_run


def other_model(run: Path) -> None:
    arrays = load((run / "model.safetensors").read_bytes())
    arrays["linear.bias"] = arrays["linear.bias"] + 1
    (run / "model.safetensors").write_bytes(save(arrays))


def test_another_model_is_found(run: Path):
    other_model(run)
    assert problems(run) == {"MODEL_MISMATCH"}


def test_another_model_is_found_by_what_sites_counted_on_when_the_coordinator_signs_it(run: Path):
    other_model(run)
    sign(run)
    found = audit(read_run(run))
    assert found["problems"] == ["MODEL_MISMATCH"]
    assert [one["site"] for one in found["findings"]] == ["clinic-a", "clinic-b", "clinic-c", "clinic-d"]


def test_a_missing_model_is_found(run: Path):
    (run / "model.safetensors").unlink()
    assert problems(run) == {"MODEL_MISSING"}


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08\0\0\0\0\0\0\0{}      ", b"PK\3\4", save({}), b"\xff" * 100],
    ids=["empty", "no arrays", "zip", "none", "ff"],
)
def test_a_file_that_is_no_model_of_the_job_is_found(run: Path, content: bytes):
    (run / "model.safetensors").write_bytes(content)
    assert problems(run) == {"MODEL_MISMATCH"}
    sign(run)
    assert problems(run) == {"MODEL_MISMATCH"}


def test_sites_of_one_round_that_started_from_different_models_are_found(tmp_path: Path):
    """The attack: the coordinator gives one site another model, to learn more from its report."""

    def astray(site: str, entry: Entry) -> Entry:
        if entry.facts is None or (site, entry.facts.round, entry.partition) != ("clinic-b", 3, "train"):
            return entry
        return replace(entry, facts=replace(entry.facts, model="ab" * 32))

    run = write_run(tmp_path / "run", rounds=ROUNDS, spoil=astray)
    found = audit(read_run(run))
    assert found["problems"] == ["MODEL_INCONSISTENT"]
    assert "after round 2" in found["findings"][0]["detail"]

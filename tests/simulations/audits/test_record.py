"""What somebody does to a run's folder who has none of its keys, or only the coordinator's, is found by the audit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load, save

from common.errors import Refusal
from common.identity import Signer
from common.secagg.manifest import manifest_table
from common.statement import signed, statement_of
from simulations.audits.privacy import audit
from simulations.audits.record import Anchors
from simulations.audits.runs import read_run
from tests.simulations.recorded import MANIFEST, ROUNDS, edit, edit_rounds, parameters_after, problems, sign, write_run


def test_changed_rounds_are_found(run: Path):
    edit_rounds(run, lambda rows: rows[3].update(loss=0.01))
    assert problems(run) == {"ROUNDS_MISMATCH"}


def cut(run: Path) -> None:
    """Half of the run, as consistent as it can be made: rounds, ledgers, heads and figures, counts left out."""
    half = ROUNDS // 2
    edit_rounds(run, lambda rows: rows.__delitem__(slice(half, None)))
    heads = {}
    for ledger in (run / "ledgers").iterdir():
        kept = ledger.read_bytes().splitlines(keepends=True)[: 1 + 2 * half]
        ledger.write_bytes(b"".join(kept))
        heads[ledger.stem] = {"head": json.loads(kept[-1])["hash"], "epsilon": 2.9}

    def shorten(facts: dict[str, Any]) -> None:
        facts["job"].update(rounds=half)
        facts["job"]["privacy"].update(spare_rounds=4 + half)
        facts.update(heads=heads, evaluation=None)

    edit(run, shorten)
    model = parameters_after(half, 12)
    arrays = load((run / "model.safetensors").read_bytes())
    flat = {"linear.weight": model[:11].reshape(1, 11), "linear.bias": model[11:]}
    assert {name: array.shape for name, array in flat.items()} == {name: array.shape for name, array in arrays.items()}
    (run / "model.safetensors").write_bytes(save(flat))


def test_a_run_that_was_cut_in_half_is_not_what_the_coordinator_signed(run: Path):
    cut(run)
    assert problems(run) == {"RECORD_MISMATCH", "ROUNDS_MISMATCH", "MODEL_MISMATCH", "JOB_MISMATCH"}


def test_a_cut_run_that_lost_its_statement_is_unsigned(run: Path):
    cut(run)
    edit(run, lambda facts: (facts.pop("statement"), facts.pop("signature")))
    assert problems(run) == {"RECORD_UNSIGNED", "JOB_MISMATCH"}


def test_a_cut_run_that_its_coordinator_signed_is_found_by_the_job_that_sites_signed(honest: Path, run: Path):
    """Must: find it in the folder alone, for the job says how many rounds there are; and by a head somebody noted."""
    noted = {site: row["head"] for site, row in json.loads((honest / "run.json").read_text())["heads"].items()}
    cut(run)
    sign(run)
    assert problems(run) == {"JOB_MISMATCH"}
    assert problems(run, Anchors(heads={"clinic-b": noted["clinic-b"]})) == {"JOB_MISMATCH", "HEAD_MISMATCH"}
    assert problems(honest, Anchors(heads=noted)) == set()


def test_an_earlier_head_of_a_ledger_is_as_good(honest: Path):
    earlier = json.loads((honest / "ledgers" / "clinic-a.jsonl").read_bytes().splitlines()[2])["hash"]
    assert problems(honest, Anchors(heads={"clinic-a": earlier})) == set()


def test_a_head_of_a_site_that_is_not_there_is_found(honest: Path):
    assert problems(honest, Anchors(heads={"clinic-z": "ab" * 32})) == {"HEAD_MISMATCH"}


def test_a_statement_signed_by_somebody_else_is_no_statement(run: Path):
    edit(run, lambda facts: facts.update(signature=Signer.generate().sign(b"hushfed/record/v1\0", b"{}").hex()))
    assert problems(run) == {"RECORD_UNSIGNED"}


def test_a_federation_that_was_made_up_is_found_by_the_true_manifest_alone(run: Path):
    """The attack: other keys for all, so that everything in the folder verifies with everything else."""
    impostor = Signer.generate()
    edit(run, lambda facts: facts["manifest"].update(coordinator=impostor.public.hex()))
    facts = json.loads((run / "run.json").read_text())
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    statement = statement_of(facts, rows, (run / "model.safetensors").read_bytes())
    (run / "run.json").write_text(json.dumps(facts | signed(statement, impostor)))
    assert problems(run) == set()
    assert audit(read_run(run))["manifest"] != MANIFEST.digest.hex()
    assert problems(run, Anchors(manifest=MANIFEST)) == {"MANIFEST_MISMATCH"}


def test_the_true_manifest_is_recognised(honest: Path):
    assert problems(honest, Anchors(manifest=MANIFEST)) == set()
    assert audit(read_run(honest))["manifest"] == MANIFEST.digest.hex()
    assert manifest_table(MANIFEST) == json.loads((honest / "run.json").read_text())["manifest"]


def test_a_run_of_an_older_version_is_a_finding_and_no_crash(run: Path):
    edit(run, lambda facts: (facts.pop("statement"), facts.pop("signature")))
    found = audit(read_run(run))
    assert found["problems"] == ["RECORD_UNSIGNED"]
    assert all(site["recomputed"] > 0 for site in found["sites"])


@pytest.mark.parametrize("name", ["accuracy", "baselines", "seeds"])
def test_scores_are_signed_whether_they_are_edited_taken_away_or_added(run: Path, name: str):
    edit(run, lambda facts: facts.update({name: None}))
    assert problems(run) == {"RECORD_MISMATCH"}
    edit(run, lambda facts: facts.pop(name))
    assert problems(run) == {"RECORD_MISMATCH"}


def test_an_exact_accuracy_that_is_edited_or_taken_away_is_found(run: Path):
    edit_rounds(run, lambda rows: [row.update(exact_accuracy=0.99) for row in rows])
    assert problems(run) == {"ROUNDS_MISMATCH"}
    edit_rounds(run, lambda rows: [row.pop("exact_accuracy") for row in rows])
    assert problems(run) == {"ROUNDS_MISMATCH"}


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of all values, of each list only the first."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))
    elif isinstance(value, list):
        yield from leaves(value[0], (*path, 0)) if value else iter(())
    yield path


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    *folders, last = path
    for folder in folders:
        value = value[folder]
    value[last] = new


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds: a longer run has no other places, and its ledgers take longer to read."""
    return write_run(tmp_path_factory.mktemp("short") / "run", rounds=2)


@pytest.mark.parametrize(
    "new",
    [float("nan"), "1", True, None, 10**400, 1e300, 10**12, -1, [[]], {"a": 1}],
    ids=["NaN", "text", "bool", "null", "huge", "large", "many", "negative", "list", "object"],
)
def test_a_value_of_any_type_anywhere_in_the_record_is_found_or_refused(short: Path, tmp_path: Path, new: Any):
    """Must not: end in an internal fault, or pass."""
    run = Path(shutil.copytree(short, tmp_path / "run"))
    facts = json.loads((short / "run.json").read_text())
    rounds = (short / "rounds.jsonl").read_text().splitlines()
    row = json.loads(rounds[0])
    changed = [(name, path) for name, table in (("run", facts), ("row", row)) for path in leaves(table) if path]
    for name, path in changed:
        table, line = json.loads(json.dumps(facts)), json.loads(json.dumps(row))
        put(table if name == "run" else line, path, new)
        if (table, line) == (facts, row) and json.dumps([table, line]) == json.dumps([facts, row]):
            continue
        (run / "run.json").write_text(json.dumps(table))
        (run / "rounds.jsonl").write_text("\n".join([json.dumps(line), *rounds[1:]]) + "\n")
        with suppress(Refusal):
            assert audit(read_run(run))["problems"], f"{name} {path} passed"

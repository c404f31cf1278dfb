"""What somebody does to a run's folder who has none of its keys, or only the coordinator's, is found by the audit."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load, save

from common.errors import Code, Refusal
from common.identity import Signer
from common.privacy.entries import Entry
from common.secagg.manifest import manifest_table
from common.statement import ADDED_TO_RUN, signed, statement_of
from simulations.audits.privacy import audit
from simulations.audits.record import Anchors
from simulations.audits.runs import read_run

RECORDED = runpy.run_path(str(Path(__file__).parent.parent / "recorded.py"))
write_run, sign, MANIFEST = RECORDED["write_run"], RECORDED["sign"], RECORDED["MANIFEST"]
ROUNDS = 6

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = write_run(tmp_path_factory.mktemp("honest") / "run", rounds=ROUNDS)
    return folder


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "run"))


def edit(run: Path, change: Edit) -> None:
    facts = json.loads((run / "run.json").read_text())
    change(facts)
    (run / "run.json").write_text(json.dumps(facts))


def edit_rounds(run: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    change(rows)
    (run / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def problems(run: Path, anchors: Anchors | None = None) -> set[str]:
    """What is found; and nothing may be claimed of a run in which anything was."""
    found = audit(read_run(run), anchors or Anchors())
    assert found["verdict"] == ("FAIL" if found["problems"] else "PASS")
    if found["problems"]:
        assert found["epsilon"] is None
        assert all("no differential privacy is claimed" in claim for claim in found["claims"])
    json.dumps(found, allow_nan=False)
    return set(found["problems"])


def numbered(numbers: list[int]) -> Callable[[list[dict[str, Any]]], object]:
    def change(rows: list[dict[str, Any]]) -> None:
        rows[:] = [{**rows[min(number, ROUNDS) - 1], "round": number} for number in numbers]

    return change


@pytest.mark.parametrize(
    "numbers", [[1, 2, 3], [1, 2, 3, 4, 6], [1, 2, 3, 4, 5, 5, 6], [2, 1, 3, 4, 5, 6], [*range(1, 8)], [0, 1, 2, 3], []]
)
def test_rounds_that_are_missing_repeated_or_too_many_are_found(run: Path, numbers: list[int]):
    """Also when the coordinator signs them."""
    edit_rounds(run, numbered(numbers))
    assert "ROUNDS_MISMATCH" in problems(run)
    sign(run)
    assert "ROUNDS_MISMATCH" in problems(run)


def test_a_job_that_asked_for_other_rounds_is_found(run: Path):
    edit(run, lambda facts: facts["job"].update(rounds=ROUNDS + 1))
    sign(run)
    assert problems(run) == {"ROUNDS_MISMATCH", "JOB_MISMATCH"}


def test_rounds_that_sites_were_charged_for_cannot_be_left_out(run: Path):
    """The attack: fewer rounds in the record and as many more spare ones, so that the plans stay the same."""
    edit_rounds(run, lambda rows: rows.__delitem__(slice(3, None)))
    edit(run, lambda facts: facts["job"].update(rounds=3) or facts.update(evaluation=None))
    edit(run, lambda facts: facts["job"]["privacy"].update(spare_rounds=7))
    sign(run)
    found = audit(read_run(run))
    assert "ROUNDS_MISMATCH" in found["problems"]
    assert {one["site"] for one in found["findings"] if one["code"] == "ROUNDS_MISMATCH"} >= {"clinic-a", "clinic-b"}


@pytest.mark.parametrize("place", ["evaluation", "rounds", "fingerprints", "heads"])
def test_a_site_that_the_manifest_does_not_name_is_found(run: Path, place: str):
    if place == "evaluation":
        edit(run, lambda facts: facts["evaluation"]["sites"].append("clinic-z"))
    elif place == "rounds":
        edit_rounds(run, lambda rows: rows[2]["sites"].append("clinic-z"))
    else:
        edit(run, lambda facts: facts[place].update({"clinic-z": facts[place]["clinic-a"]}))
    sign(run)
    assert problems(run) == {"MANIFEST_INVALID"}


@pytest.mark.parametrize("change", [{"delta": "1e-4"}, {"delta": float("nan")}, {"epsilon": True}])
def test_a_figure_that_is_no_number_is_refused(run: Path, change: dict[str, Any]):
    edit(run, lambda facts: facts["job"]["privacy"].update(change))
    with pytest.raises(Refusal) as refused:
        read_run(run)
    assert refused.value.code is Code.DATA_INVALID


@pytest.mark.parametrize(
    "change",
    [{"delta": 1e-12}, {"mode": "M1"}, {"unit": "site"}, {"epsilon": 100.0}, {"evaluation_epsilon": 100.0},
     {"colluding": 2}, {"colluding": 0}, {"clip": 0.1}, {"sampling_rate": 0.01}, {"spare_rounds": 40},
     {"mode": "none"}, {"delta": None}, {"more": 1}],
)  # fmt: skip
def test_a_job_that_says_other_than_what_sites_signed_is_found(run: Path, change: dict[str, Any]):
    """Must: report what was signed. Must not: believe run.json, whoever signed that."""
    edit(run, lambda facts: facts["job"]["privacy"].update(change))
    assert problems(run) & {"RECORD_MISMATCH"}
    sign(run)
    assert problems(run) & {"JOB_MISMATCH", "PLAN_MISMATCH"}
    found = audit(read_run(run))
    assert (found["delta"], found["mode"], found["unit"], found["limit"]) == (1e-4, "M2", "record", 3.0)
    assert all((site["delta"], site["mode"], site["unit"]) == (1e-4, "M2", "record") for site in found["sites"])


@pytest.mark.parametrize(("part", "change"), [("training", {"local_steps": 3}), ("aggregation", {"quorum": 4}),
                                              ("model", {"name": "cnn"}), ("evaluation", {"bins": 4})])  # fmt: skip
def test_other_parts_of_the_job_that_change_its_plans_are_found(run: Path, part: str, change: dict[str, Any]):
    edit(run, lambda facts: facts["job"][part].update(change))
    sign(run)
    assert "JOB_MISMATCH" in problems(run)


def test_a_run_that_cost_more_than_its_plans_promised_is_found(tmp_path: Path):
    """The attack: sites sign plans that promise less than their noise keeps, and the job agrees."""

    def promise_less(site: str, entry: Entry) -> Entry:
        if entry.plan is None:
            return entry
        plan = replace(entry.plan, epsilon=0.2)
        return replace(entry, plan=plan, plan_id=plan.plan_id)

    def agree(facts: dict[str, Any]) -> None:
        facts["job"]["privacy"].update(epsilon=0.2, evaluation_epsilon=0.2)

    run = write_run(tmp_path / "run", rounds=ROUNDS, spoil=promise_less, change=agree)
    assert problems(run) == {"BUDGET_EXCEEDED"}


def test_sites_that_signed_different_plans_are_found(tmp_path: Path):
    def other(site: str, entry: Entry) -> Entry:
        if entry.plan is None or site != "clinic-b":
            return entry
        plan = replace(entry.plan, delta=1e-3)
        return replace(entry, plan=plan, plan_id=plan.plan_id)

    run = write_run(tmp_path / "run", rounds=ROUNDS, spoil=other)
    assert problems(run) == {"PLAN_MISMATCH", "JOB_MISMATCH"}
    assert audit(read_run(run))["delta"] == 1e-4


@pytest.mark.parametrize(
    "change",
    [{"sampling_rate": 0.0}, {"sampling_rate": 2.0}, {"noise_multiplier": 0.0}, {"noise_multiplier": 1e300},
     {"honest": 0}, {"honest": 2**62}, {"dimension": -1}, {"scale": 0.0}, {"record_bound": 1e300}, {"delta": -1.0}],
    ids=str,
)  # fmt: skip
def test_a_site_cannot_stop_the_audit_with_a_plan_that_has_no_cost(tmp_path: Path, change: dict[str, Any]):
    def spoil(site: str, entry: Entry) -> Entry:
        if entry.plan is None or (site, entry.partition) != ("clinic-b", "train"):
            return entry
        plan = replace(entry.plan, **change)
        return replace(entry, plan=plan, plan_id=plan.plan_id)

    run = write_run(tmp_path / "run", rounds=2, spoil=spoil)
    assert problems(run) >= {"PLAN_INVALID", "PLAN_MISMATCH"}
    assert audit(read_run(run))["sites"][1]["recomputed"] is None


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


def test_changed_rounds_are_found(run: Path):
    edit_rounds(run, lambda rows: rows[3].update(loss=0.01))
    assert problems(run) == {"ROUNDS_MISMATCH"}


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
    model = RECORDED["parameters_after"](half, 12)
    arrays = load((run / "model.safetensors").read_bytes())
    flat = {"linear.weight": model[:11].reshape(1, 11), "linear.bias": model[11:]}
    assert {name: array.shape for name, array in flat.items()} == {name: array.shape for name, array in arrays.items()}
    (run / "model.safetensors").write_bytes(save(flat))


def test_a_run_that_was_cut_in_half_is_not_what_the_coordinator_signed(run: Path):
    cut(run)
    assert problems(run) == {"RECORD_MISMATCH", "ROUNDS_MISMATCH", "MODEL_MISMATCH"}


def test_a_cut_run_that_lost_its_statement_is_unsigned(run: Path):
    cut(run)
    edit(run, lambda facts: (facts.pop("statement"), facts.pop("signature")))
    assert problems(run) == {"RECORD_UNSIGNED"}


def test_a_cut_run_that_its_coordinator_signed_is_found_by_a_head_that_a_keeper_noted(honest: Path, run: Path):
    """Nothing in the folder can tell: every part of it was really signed. So somebody outside must know more."""
    noted = {site: row["head"] for site, row in json.loads((honest / "run.json").read_text())["heads"].items()}
    cut(run)
    sign(run)
    assert problems(run) == set()
    assert problems(run, Anchors(heads={"clinic-b": noted["clinic-b"]})) == {"HEAD_MISMATCH"}
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


def test_what_a_simulation_adds_is_outside_the_signature(run: Path):
    edit(run, lambda facts: facts.update(accuracy=0.5, baselines=None, seeds={}))
    edit_rounds(run, lambda rows: [row.pop("exact_accuracy") for row in rows])
    assert problems(run) == set()


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


@pytest.mark.parametrize(
    "new",
    [float("nan"), "1", True, None, 10**400, 1e300, 10**12, -1, [[]], {"a": 1}],
    ids=["NaN", "text", "bool", "null", "huge", "large", "many", "negative", "list", "object"],
)
def test_a_value_of_any_type_anywhere_in_the_record_is_found_or_refused(honest: Path, run: Path, new: Any):
    """Must not: end in an internal fault, or pass."""
    facts = json.loads((honest / "run.json").read_text())
    rounds = (honest / "rounds.jsonl").read_text().splitlines()
    row = json.loads(rounds[0])
    changed = [(name, path) for name, table in (("run", facts), ("row", row)) for path in leaves(table) if path]
    for name, path in changed:
        if path[0] in {*ADDED_TO_RUN - {"statement", "signature"}, "exact_accuracy"}:
            continue
        table, line = json.loads(json.dumps(facts)), json.loads(json.dumps(row))
        put(table if name == "run" else line, path, new)
        if (table, line) == (facts, row) and json.dumps([table, line]) == json.dumps([facts, row]):
            continue
        (run / "run.json").write_text(json.dumps(table))
        (run / "rounds.jsonl").write_text("\n".join([json.dumps(line), *rounds[1:]]) + "\n")
        with suppress(Refusal):
            assert audit(read_run(run))["problems"], f"{name} {path} passed"

"""The coordinator's statement covers all of a record, and verifies for one key only."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import plain
from common.errors import Code, Refusal
from common.identity import Signer
from common.statement import opened, signed, statement_of

SIGNER = Signer.from_seed(bytes(32))
MODEL = b"the bytes of a model"
RUN: dict[str, Any] = {
    "run": "ab" * 16,
    "job": {"name": "clinics", "rounds": 2},
    "manifest": {"federation": "clinics"},
    "heads": {"clinic-a": {"head": "cd" * 32, "epsilon": 1.5}, "clinic-b": {"head": "ef" * 32, "epsilon": None}},
    "fingerprints": {"clinic-a": "12" * 32},
    "evaluation": {"round": 2, "counts": [[1, 2]]},
    "versions": {"hushfed": "0.1.0"},
    "seconds": 3.25,
}
ROWS = [{"round": 1, "sites": ["clinic-a"]}, {"round": 2, "sites": ["clinic-a"]}]


def written(value: Any) -> Any:
    """As it comes back from its file."""
    return json.loads(json.dumps(value))


def test_a_signed_run_says_after_writing_and_reading_what_was_signed():
    run = written({**RUN, **signed(statement_of(RUN, ROWS, MODEL), SIGNER)})
    statement = opened(run, SIGNER.public)
    assert statement == statement_of(run, written(ROWS), MODEL)
    assert statement.rounds == 2


def test_the_statement_and_its_signature_are_no_part_of_what_is_stated():
    run = {**RUN, "statement": {}, "signature": "ab"}
    assert statement_of(run, ROWS, MODEL) == statement_of(RUN, ROWS, MODEL)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("run", lambda run: run.update(run="00" * 16)),
        ("job", lambda run: run["job"].update(rounds=1)),
        ("manifest", lambda run: run["manifest"].update(federation="other")),
        ("heads", lambda run: run["heads"]["clinic-a"].update(epsilon=0.5)),
        ("heads", lambda run: run["heads"].pop("clinic-b")),
        ("fingerprints", lambda run: run["fingerprints"].update({"clinic-b": "34" * 32})),
        ("evaluation", lambda run: run["evaluation"].update(round=1)),
        ("evaluation", lambda run: run.update(evaluation=None)),
        ("rest", lambda run: run.update(seconds=1.0)),
        ("rest", lambda run: run.update(something="more")),
        ("rest", lambda run: run.update(accuracy=0.99)),
        ("rest", lambda run: run.update(baselines={"pooled_accuracy": 0.5})),
        ("rest", lambda run: run.update(seeds={"world": 2})),
    ],
)
def test_each_change_of_the_record_shows_in_its_field(field: str, change: Callable[[dict[str, Any]], Any]):
    run = copy.deepcopy(RUN)
    change(run)
    before, after = plain(statement_of(RUN, ROWS, MODEL)), plain(statement_of(run, ROWS, MODEL))
    assert {name for name in before if before[name] != after[name]} == {field}


def test_changed_rounds_and_another_model_show():
    true = plain(statement_of(RUN, ROWS, MODEL))
    fewer = plain(statement_of(RUN, ROWS[:1], MODEL))
    assert {name for name in true if true[name] != fewer[name]} == {"rounds", "rows"}
    better = plain(statement_of(RUN, [{**row, "exact_accuracy": 0.99} for row in ROWS], MODEL))
    assert {name for name in true if true[name] != better[name]} == {"rows"}
    other = plain(statement_of(RUN, ROWS, MODEL + b"!"))
    assert {name for name in true if true[name] != other[name]} == {"model"}


def test_the_statement_of_another_key_is_not_opened():
    run = {**RUN, **signed(statement_of(RUN, ROWS, MODEL), SIGNER)}
    with pytest.raises(Refusal) as refused:
        opened(run, Signer.generate().public)
    assert refused.value.code is Code.E_SIG


@given(st.sampled_from(["run", "job", "rounds", "rows", "model", "rest", "schema", "heads", "new"]), st.data())
def test_a_statement_with_anything_changed_is_not_opened(field: str, data: st.DataObject):
    run = written({**RUN, **signed(statement_of(RUN, ROWS, MODEL), SIGNER)})
    value = data.draw(st.none() | st.booleans() | st.floats() | st.text() | st.integers() | st.lists(st.integers()))
    if run["statement"].get(field) == value:
        return
    run["statement"][field] = value
    with pytest.raises(Refusal) as refused:
        opened(run, SIGNER.public)
    assert refused.value.code in (Code.E_SIG, Code.CONFIG_INVALID)


@pytest.mark.parametrize(
    "parts",
    [
        {}, {"statement": {}}, {"signature": "00" * 64}, {"statement": {}, "signature": "zz"},
        {"statement": {"a": 1}, "signature": "00" * 64}, {"statement": [], "signature": "00" * 64},
        {"statement": {"schema": float("nan")}, "signature": "00" * 64}, {"statement": {}, "signature": 5},
    ],
)  # fmt: skip
def test_what_is_no_signed_statement_is_refused(parts: dict[str, Any]):
    with pytest.raises(Refusal):
        opened({**RUN, **parts}, SIGNER.public)


def test_a_signed_table_of_another_form_is_refused():
    """Must not: read a statement of a later version as one of this."""
    table = {**plain(statement_of(RUN, ROWS, MODEL)), "schema": 2}
    later = {"statement": table, "signature": SIGNER.sign(b"hushfed/record/v1\0", json.dumps(
        table, sort_keys=True, separators=(",", ":")).encode()).hex()}  # fmt: skip
    with pytest.raises(Refusal) as refused:
        opened({**RUN, **later}, SIGNER.public)
    assert refused.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_without_a_canonical_form_is_refused(value: float):
    with pytest.raises(Refusal):
        statement_of({**RUN, "seconds": value}, ROWS, MODEL)


def test_a_record_nested_too_deeply_is_refused():
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    with pytest.raises(Refusal):
        statement_of({**RUN, "versions": deep}, ROWS, MODEL)

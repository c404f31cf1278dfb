"""Files of a run in another form: a typed refusal wherever it is, never a fault of this software."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from common.errors import Code, Refusal
from simulations.audits import runs
from simulations.audits.runs import Run, read_run
from simulations.audits.shape import check_facts, check_round
from tests.simulations.recorded import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(write_run(tmp_path_factory.mktemp("shape") / "run", rounds=2))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in a JSON value, of lists the first element alone."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for name, part in inner:
        yield from places(part, (*path, name))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    made = inner = copy.deepcopy(value)
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = new
    return made


def test_a_number_that_is_not_finite_is_refused_wherever_it_stands(run: Run) -> None:
    """Must not: refuse the figure that a run reported of a site; that one is a finding of the audit."""
    for path in places(run.facts):
        wrong = changed(run.facts, path, math.nan)
        if path[0] == "heads" and path[-1] == "epsilon":
            check_facts(wrong)
            continue
        with pytest.raises(Refusal) as refused:
            check_facts(wrong)
        assert refused.value.code is Code.DATA_INVALID
    for path in places(run.rounds[0]):
        with pytest.raises(Refusal, match="line 1"):
            check_round(changed(run.rounds[0], path, math.inf), "rounds.jsonl, line 1")


@pytest.mark.parametrize("wrong", ["3", True, [], {}, math.nan])
@pytest.mark.parametrize("name", ["epsilon", "delta", "evaluation_epsilon"])
def test_a_promise_that_is_no_number_is_refused(run: Run, name: str, wrong: Any) -> None:
    with pytest.raises(Refusal, match=name) as refused:
        check_facts(changed(run.facts, ("job", "privacy", name), wrong))
    assert refused.value.code is Code.DATA_INVALID


def test_the_file_and_its_line_are_named(run: Run, tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", rounds=2)
    first, second = (folder / "rounds.jsonl").read_text().splitlines()
    (folder / "rounds.jsonl").write_text(first + "\n" + json.dumps({**json.loads(second), "sites": "clinic-a"}))
    with pytest.raises(Refusal, match=r"rounds\.jsonl, line 2 not read"):
        read_run(folder)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("run.json", '{"schema"', '{"accuracy": 0.99, "schema"'),
        ("run.json", '"evaluation_epsilon"', '"epsilon": 0.1, "evaluation_epsilon"'),
        ("rounds.jsonl", '{"round": 2', '{"sites": [], "round": 2'),
    ],
)
def test_a_name_that_stands_twice_in_one_object_is_refused(tmp_path: Path, file: str, old: str, new: str) -> None:
    """The attack: a record that this reader takes by its last value, and another reader by its first."""
    path = write_run(tmp_path / "run", rounds=2) / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(Refusal, match="stands twice") as refused:
        read_run(path.parent)
    assert refused.value.code is Code.DATA_INVALID


@pytest.mark.parametrize("place", ["versions", "statement", "something"])
def test_a_record_that_is_nested_too_deeply_is_refused(run: Run, place: str) -> None:
    deep: Any = 1
    for _ in range(900):
        deep = {"a": [deep]}
    with pytest.raises(Refusal) as refused:
        check_facts(changed(run.facts, (place,), deep))
    assert refused.value.code is Code.DATA_INVALID


@pytest.mark.parametrize("name", ["run.json", "rounds.jsonl", "model.safetensors", "ledgers/clinic-a.jsonl"])
def test_a_file_of_a_record_that_has_no_end_or_is_too_large_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    folder = write_run(tmp_path / "run", rounds=2)
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(Refusal, match="plain file") as refused:
        read_run(folder)
    assert refused.value.code is Code.DATA_INVALID
    path.unlink()
    path.write_bytes(content)
    monkeypatch.setattr(runs, "MOST_BYTES", len(content) - 1)
    with pytest.raises(Refusal) as refused:
        read_run(folder)
    assert refused.value.code is Code.DATA_INVALID

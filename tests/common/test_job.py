"""Jobs: one value, one spelling, read from the same bytes by everybody."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import load, plain
from common.errors import Code, Refusal
from common.job import Job, job_from_bytes
from simulations.scenario import EXAMPLES, example, read_scenario

JOBS = {name: read_scenario(example(name)).job for name in EXAMPLES}
JOB = JOBS["clinics"]


def changed(**places: Any) -> dict[str, Any]:
    """The plain job with settings replaced; `a__b` is the setting b of the table a."""
    table = plain(JOB)
    for place, value in places.items():
        *folders, last = place.split("__")
        inner = table
        for folder in folders:
            inner = inner[folder]
        inner[last] = value
    return table


def refused(data: bytes) -> Refusal:
    with pytest.raises(Refusal) as found:
        job_from_bytes(data)
    assert found.value.code is Code.CONFIG_INVALID
    return found.value


@pytest.mark.parametrize("name", JOBS)
def test_a_job_comes_back_from_its_bytes_and_from_its_plain_form(name: str) -> None:
    job = JOBS[name]
    assert load(Job, plain(job)) == job
    again = job_from_bytes(job.to_bytes())
    assert again == job
    assert again.to_bytes() == job.to_bytes()
    assert again.digest() == job.digest()
    assert len({each.digest() for each in JOBS.values()}) == len(JOBS)


def test_a_job_has_one_digest_however_it_was_made() -> None:
    made = replace(JOB, training=replace(JOB.training), aggregation=replace(JOB.aggregation))
    assert made == JOB
    assert made.digest() == JOB.digest()
    assert plain(JOB)["training"]["optimizer"] == "sgd"  # a default


@given(
    rounds=st.integers(1, 100_000),
    seed=st.integers(0, 2**53),
    rate=st.floats(1e-6, 1e3),
    deadline=st.floats(0.1, 86400),
    settings=st.dictionaries(st.text(max_size=4), st.integers(-9, 9) | st.floats(-1, 1) | st.booleans(), max_size=3),
)
def test_any_job_comes_back_from_its_bytes(
    rounds: int, seed: int, rate: float, deadline: float, settings: dict[str, Any]
) -> None:
    table = changed(
        rounds=rounds,
        seed=seed,
        training__learning_rate=rate,
        aggregation__deadline_seconds=deadline,
        model__settings=settings,
    )
    job = load(Job, table)
    assert job_from_bytes(job.to_bytes()) == job
    assert plain(job) == plain(load(Job, plain(job)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        JOB.to_bytes() + b" ",
        b" " + JOB.to_bytes(),
        JOB.to_bytes()[:-1],
        json.dumps(plain(JOB)).encode(),
        JOB.to_bytes().replace(b'"rounds":40', b'"rounds":40,"rounds":40'),
        JOB.to_bytes().replace(b'"rounds":40', b'"rounds":40.0'),
        JOB.to_bytes().replace(b'"learning_rate":4.0', b'"learning_rate":4'),
        JOB.to_bytes().replace(b'"learning_rate":4.0', b'"learning_rate":4.00'),
        JOB.to_bytes().replace(b'"learning_rate":4.0', b'"learning_rate":NaN'),
        JOB.to_bytes().replace(b'"learning_rate":4.0', b'"learning_rate":1e999'),
        JOB.to_bytes().replace(b'"noise":"system"', b'"noise":"sys\\u0074em"'),
        JOB.to_bytes().replace(b'"noise":"system",', b""),
    ],
    ids=range(19),
)
def test_bytes_in_any_other_form_are_refused(data: bytes) -> None:
    refused(data)


@given(st.integers(0, 10**6), st.integers(0, 7))
def test_a_flipped_bit_gives_another_job_or_a_refusal(place: int, bit: int) -> None:
    data = bytearray(JOB.to_bytes())
    data[place % len(data)] ^= 1 << bit
    try:
        job = job_from_bytes(bytes(data))
    except Refusal as refused:
        code = refused.code
    else:
        assert job.to_bytes() == bytes(data)
        assert job.digest() != JOB.digest()
        return
    assert code is Code.CONFIG_INVALID


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("rounds", 0),
        ("rounds", 100_001),
        ("seed", -1),
        ("seed", 2**53 + 1),
        ("name", ""),
        ("name", "../up"),
        ("name", "two words"),
        ("training__learning_rate", 0.0),
        ("training__local_steps", 0),
        ("training__optimizer", "sdg"),
        ("training__loss", "cros-entropy"),
        ("privacy__epsilon", 0.0),
        ("privacy__epsilon", float("inf")),
        ("privacy__delta", 0.5),
        ("privacy__clip", float("nan")),
        ("privacy__sampling_rate", 1.5),
        ("privacy__noise", "none"),
        ("privacy__mode", "M3"),
        ("aggregation__quorum", 1),
        ("aggregation__secure", "none"),
        ("aggregation__session_rounds", 1025),
        ("aggregation__deadline_seconds", float("inf")),
        ("aggregation__bits", 17),
        ("aggregation__bound", -1.0),
        ("evaluation__bins", 1),
        ("evaluation__releases", 0),
    ],
)
def test_a_setting_outside_its_range_is_refused(place: str, value: Any) -> None:
    with pytest.raises(Refusal) as found:
        load(Job, changed(**{place: value}))
    assert found.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize("table", [(), ("privacy",), ("training",), ("aggregation",), ("data",), ("data", "label")])
def test_an_unknown_setting_is_refused_in_every_table(table: tuple[str, ...]) -> None:
    with pytest.raises(Refusal, match="has no setting 'epsilonn'"):
        load(Job, changed(**{"__".join([*table, "epsilonn"]): 1.0}))


@pytest.mark.parametrize(
    ("rounds", "releases", "after"), [(40, 1, {40}), (10, 2, {5, 10}), (3, 9, {1, 2, 3}), (7, 3, {2, 5, 7})]
)
def test_counts_are_released_evenly_and_after_the_last_round(rounds: int, releases: int, after: set[int]) -> None:
    job = load(Job, changed(rounds=rounds, evaluation__releases=releases))
    assert job.evaluation_rounds == after


def test_a_job_names_every_column_that_it_reads() -> None:
    assert set(JOB.columns) == {"age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "progression"}
    assert JOBS["digits"].columns == ("pixel*", "digit")

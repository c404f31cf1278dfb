"""The policy of a site: nothing is allowed that no line allows, and the refusal names the line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.policy import Policy, TaskName, decide, lines
from common.config import load
from common.errors import Code, Refusal
from common.job import Job
from simulations.provision import policy_of
from tests.worlds import scenario

JOBS = {mode: scenario(mode).job for mode in ("M1", "M2", "none")}
TASKS: tuple[TaskName, ...] = ("offer", "train", "evaluate", "ledger")
SIZE = 12
QUORUM = 2


def generous(mode: str = "M2", **places: Any) -> Policy:
    """The policy that allows exactly the job of this mode, with settings replaced: a__b is b of the table a."""
    table = {name: dict(rules) for name, rules in policy_of(scenario(mode)).items()}
    table["models"]["max_parameters"] = SIZE
    for place, value in places.items():
        folder, name = place.split("__")
        table[folder][name] = value
    return load(Policy, table)


def refusal(policy: Policy, job: Job, task: TaskName = "train", size: int = SIZE) -> Refusal:
    with pytest.raises(Refusal) as refused:
        decide(policy, job, task, size, QUORUM)
    return refused.value


@pytest.mark.parametrize("mode", JOBS)
@pytest.mark.parametrize("task", TASKS)
def test_an_empty_policy_refuses_everything(mode: str, task: TaskName) -> None:
    for parameters in (0, SIZE):
        assert refusal(load(Policy, {}), JOBS[mode], task, parameters).code is Code.POLICY_TASK
    assert not any(
        line.allowed
        for line in lines(load(Policy, {}), JOBS[mode], task, SIZE, QUORUM)
        if line.setting.startswith(
            ("[tasks]", "[data]", "[models]", "[privacy] modes", "[privacy] max", "[privacy] delta")
        )
    )


@pytest.mark.parametrize("mode", JOBS)
@pytest.mark.parametrize("task", TASKS)
def test_what_every_line_allows_is_allowed(mode: str, task: TaskName) -> None:
    decide(generous(mode), JOBS[mode], task, SIZE, QUORUM)


RULES: list[tuple[str, Any, str, str, Code]] = [
    ("tasks__allow", ["offer", "evaluate"], "M2", "[tasks] allow = ['offer', 'evaluate']", Code.POLICY_TASK),
    ("data__datasets", ["other", "clinic"], "M2", "[data] datasets = ['other', 'clinic']", Code.POLICY_DATA),
    ("data__columns", ["age", "s[1-6]", "b*", "progression"], "M2", "[data] columns", Code.POLICY_DATA),
    ("models__allow", ["mlp", "logistic?"], "M2", "[models] allow", Code.POLICY_MODEL),
    ("models__max_parameters", SIZE - 1, "M2", f"[models] max_parameters = {SIZE - 1}", Code.POLICY_MODEL),
    ("privacy__modes", ["M1", "none"], "M2", "[privacy] modes = ['M1', 'none']", Code.POLICY_PRIVACY),
    ("privacy__modes", ["M1", "M2"], "none", "[privacy] modes = ['M1', 'M2']", Code.POLICY_PRIVACY),
    ("privacy__max_epsilon", 7.99, "M2", "[privacy] max_epsilon = 7.99", Code.POLICY_PRIVACY),
    ("privacy__delta", 9e-6, "M1", "[privacy] delta = 9e-06", Code.POLICY_PRIVACY),
    ("privacy__allow_replay", False, "M2", "[privacy] allow_replay = False", Code.POLICY_PRIVACY),
    ("privacy__colluding", 1, "M2", "[privacy] colluding = 1", Code.POLICY_PRIVACY),
    ("aggregation__quorum", 3, "M2", "[aggregation] quorum = 3", Code.POLICY_SECAGG),
    ("aggregation__protocols", ["bonawitz"], "M2", "[aggregation] protocols = ['bonawitz']", Code.POLICY_SECAGG),
    ("aggregation__protocols", [], "none", "[aggregation] protocols = []", Code.POLICY_SECAGG),
    ("aggregation__quorum", 3, "none", "[aggregation] quorum = 3", Code.POLICY_SECAGG),
]


@pytest.mark.parametrize(("place", "value", "mode", "line", "code"), RULES, ids=[f"{r[0]}-{r[2]}" for r in RULES])
def test_each_rule_decides_when_it_alone_is_broken(place: str, value: Any, mode: str, line: str, code: Code) -> None:
    found = refusal(generous(mode, **{place: value}), JOBS[mode])
    assert found.code is code
    assert line in found.why
    assert JOBS[mode].name in found.what
    rows = lines(generous(mode, **{place: value}), JOBS[mode], "train", SIZE, QUORUM)
    broken = [row for row in rows if not row.allowed]
    assert len(broken) == 1


def test_the_larger_of_the_two_epsilons_counts() -> None:
    job = JOBS["M2"]
    job = replace(job, privacy=replace(job.privacy, epsilon=1.0, evaluation_epsilon=8.5))
    assert "8.5" in refusal(generous(), job).why


def test_every_column_must_be_allowed_and_the_missing_ones_are_named() -> None:
    found = refusal(generous(data__columns=["[!as]*", "s?"]), JOBS["M2"])
    assert "columns age, sex" in found.why


@given(
    epsilon=st.floats(0.1, 100),
    delta=st.floats(1e-9, 1e-2),
    colluding=st.integers(0, 3),
    quorum=st.integers(2, 9),
    noise=st.sampled_from(["system", "replay"]),
)
def test_a_job_is_never_allowed_more_than_the_policy_says(
    epsilon: float, delta: float, colluding: int, quorum: int, noise: Any
) -> None:
    """Must: allow exactly what is at least as strict as each line. Must not: let one good setting buy another."""
    policy = generous(privacy__max_epsilon=8.0, privacy__delta=1e-5, privacy__colluding=1, privacy__allow_replay=False)
    job = JOBS["M2"]
    privacy = replace(job.privacy, epsilon=epsilon, delta=delta, colluding=colluding, noise=noise)
    job = replace(job, privacy=privacy, aggregation=replace(job.aggregation, quorum=quorum))
    strict = epsilon <= 8.0 and delta <= 1e-5 and colluding >= 1 and quorum >= 2 and noise == "system"
    if strict:
        decide(policy, job, "train", SIZE, QUORUM)
    else:
        assert refusal(policy, job).code in (Code.POLICY_PRIVACY, Code.POLICY_SECAGG)


def test_a_job_cannot_name_its_way_through_a_pattern() -> None:
    """A name of the job is matched as text: a star in it is a star, not everything."""
    for name in ("*", "clinic*", "[c]linics"):
        assert refusal(generous(data__datasets=["clinics"]), replace(JOBS["M2"], dataset=name)).code is Code.POLICY_DATA


@pytest.mark.parametrize(
    "rules",
    [{"delta": 0.5}, {"delta": float("nan")}, {"max_epsilon": float("inf")}, {"max_epsilon": -1.0}, {"colluding": -1}],
    ids=str,
)
def test_a_limit_that_limits_nothing_is_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        load(Policy, {"privacy": rules})
    assert refused.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize(
    "table", [{"task": {}}, {"tasks": {"alow": []}}, {"privacy": {"epsilon": 3.0}}, {"tasks": {"allow": ["all"]}}]
)
def test_a_policy_that_says_something_unknown_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as refused:
        load(Policy, table)
    assert refused.value.code is Code.CONFIG_INVALID

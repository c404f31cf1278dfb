"""The local loop: what one record may add to a sum, and steps without privacy."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.trainer import Workbench, gradient_lanes, pick_device, train_plainly
from common.data import Records
from common.errors import Refusal
from common.learning.plan import TrainingPlan
from common.models.catalogue import build
from common.models.front import parted
from common.parameters import assign, flatten, layout_of
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.mechanism import MechanismPlan
from common.work import work_of
from tests.secagg_federation import manifest_of
from tests.worlds import scenario

SHAPES = {"logistic": (6,), "mlp": (6,), "cnn": (1, 8, 8)}
CLASSES = {"logistic": 2, "mlp": 3, "cnn": 4}
PLAN = work_of(scenario("M2").job, manifest_of(3)).training
EXACT = 1 + 1e-6


def plan_for(name: str, **changes: float) -> MechanismPlan:
    size = layout_of(bench_of(name).model).size
    made = replace(PLAN, dimension=size + 2, **changes)
    return replace(made, record_bound=math.hypot(made.clip, math.sqrt(2) * made.lane_bound))


def bench_of(name: str, **changes: float | str) -> Workbench:
    """A model whose weights are not those of its start, which may all be zero."""
    model = build(name, inputs=SHAPES[name], classes=CLASSES[name], seed=1)
    flat = flatten(model)
    assign(model, flat + np.random.default_rng(9).normal(0, 0.3, flat.size).astype(np.float32))
    plan = TrainingPlan(**{"learning_rate": 0.5, **changes})  # type: ignore[arg-type]
    return Workbench(model, plan.task(CLASSES[name]), plan, torch.device("cpu"), OpacusEngine())


def records(name: str, count: int, seed: int, spread: float = 1.0) -> Records:
    draw = np.random.default_rng(seed)
    inputs = torch.tensor(draw.normal(0, spread, (count, *SHAPES[name])), dtype=torch.float32)
    labels = torch.tensor(draw.integers(0, CLASSES[name], count))
    return Records(inputs, labels, torch.zeros(count, dtype=torch.int64), tuple(bytes([i]) * 16 for i in range(count)))


def sum_of(name: str, batch: Records, plan: MechanismPlan) -> np.ndarray:
    found = gradient_lanes(bench_of(name), batch, plan)
    assert found.record_bound == pytest.approx(plan.record_bound)
    return found.total


@pytest.mark.parametrize("name", SHAPES)
@given(
    count=st.integers(1, 5),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.01, 1.0, 1e3]),
    clip=st.sampled_from([0.01, 1.0, 100.0]),
    lane=st.sampled_from([0.005, 0.5, 20.0]),
)
@settings(max_examples=25)
def test_one_record_moves_the_lanes_by_its_bound_at_most(
    name: str, count: int, seed: int, spread: float, clip: float, lane: float
) -> None:
    """Adding or removing any one record: the relation under which every epsilon is stated."""
    plan = plan_for(name, clip=clip, lane_bound=lane)
    batch = records(name, count, seed, spread)
    whole = sum_of(name, batch, plan)
    assert whole.dtype == np.float64
    assert whole.shape == (plan.dimension,)
    for left_out in range(count):
        rest = sum_of(name, batch.take([i for i in range(count) if i != left_out]), plan)
        assert np.linalg.norm(whole - rest) <= plan.record_bound * EXACT + 1e-9


@pytest.mark.parametrize("name", SHAPES)
def test_the_metric_lanes_count_losses_and_hits(name: str) -> None:
    plan, batch, bench = plan_for(name, lane_bound=0.5), records(name, 20, 3), bench_of(name)
    with torch.no_grad():
        outputs = bench.model(batch.inputs)
        losses = bench.task.losses(outputs, batch.labels).double().clamp(0, plan.loss_bound)
        correct = bench.task.correct(outputs, batch.labels).double()
    lanes = gradient_lanes(bench, batch, plan).total[-2:]
    assert lanes == pytest.approx([0.5 * float(losses.sum()) / plan.loss_bound, 0.5 * float(correct.sum())], rel=1e-5)


def test_a_loss_beyond_its_bound_counts_as_the_bound() -> None:
    plan, batch = plan_for("logistic", lane_bound=1.0), records("logistic", 1, 0)
    bench = bench_of("logistic")
    wrong = replace(batch, inputs=batch.inputs * 1e6)
    lanes = [gradient_lanes(bench, replace(wrong, labels=torch.tensor([label])), plan).total[-2] for label in (0, 1)]
    assert sorted(lanes) == pytest.approx([0.0, 1.0])


def test_an_empty_batch_adds_nothing_and_a_broken_record_nothing() -> None:
    plan = plan_for("logistic", lane_bound=0.5)
    assert not sum_of("logistic", records("logistic", 0, 0), plan).any()
    batch = records("logistic", 3, 1)
    batch.inputs[1] = float("nan")
    whole = sum_of("logistic", batch, plan)
    assert np.isfinite(whole).all()
    assert np.allclose(whole, sum_of("logistic", batch.take([0, 2]), plan))


def test_without_metric_lanes_only_the_gradient_leaves() -> None:
    plan = replace(PLAN, lane_bound=0.0)
    found = gradient_lanes(bench_of("logistic"), records("logistic", 4, 0), plan)
    assert found.total.shape == (layout_of(bench_of("logistic").model).size,)
    assert found.record_bound == plan.clip


def test_plain_training_lowers_the_loss_and_repeats_for_the_same_draws() -> None:
    batch, start = records("logistic", 200, 5), flatten(bench_of("logistic").model)
    batch = replace(batch, labels=(batch.inputs[:, 0] > 0).long())
    changes = []
    for _ in range(2):
        bench = bench_of("logistic", local_steps=50)
        before = float(bench.task.losses(bench.model(batch.inputs), batch.labels).mean().detach())
        changes.append(train_plainly(bench, batch, np.random.default_rng(7)))
        after = float(bench.task.losses(bench.model(batch.inputs), batch.labels).mean().detach())
        assert after < 0.6 * before
        assert np.allclose(flatten(bench.model), start + changes[-1], atol=1e-6)
    assert np.array_equal(*changes)


def test_one_plain_step_is_the_step_by_hand() -> None:
    batch, bench = records("logistic", 10, 2), bench_of("logistic", learning_rate=0.5)
    before = flatten(bench.model).astype(np.float64)
    bench.task.losses(bench.model(batch.inputs), batch.labels).mean().backward()  # type: ignore[no-untyped-call]
    gradient = torch.cat([p.grad.reshape(-1) for p in bench.model.parameters() if p.grad is not None]).numpy()
    change = train_plainly(bench_of("logistic", learning_rate=0.5), batch, np.random.default_rng(0))
    assert np.allclose(change, -0.5 * gradient, atol=1e-6)
    assert np.allclose(flatten(bench.model), before)


def test_the_proximal_pull_holds_an_update_near_its_start() -> None:
    """FedProx: the stronger the pull, the shorter the way; without any it is FedAvg's local loop."""
    batch = records("logistic", 100, 5)
    ways = [
        np.linalg.norm(
            train_plainly(bench_of("logistic", local_steps=40, proximal=pull), batch, np.random.default_rng(1))
        )
        for pull in (0.0, 0.5, 2.0)
    ]
    assert ways[0] > 1.2 * ways[1] > 1.2 * ways[2]


def test_a_site_without_records_changes_nothing() -> None:
    assert not train_plainly(
        bench_of("logistic", local_steps=3), records("logistic", 0, 0), np.random.default_rng(0)
    ).any()


def test_the_device_is_the_one_that_is_wished_for() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in {"cpu", "cuda", "mps"}
    absent = "mps" if torch.cuda.is_available() else "cuda"
    with pytest.raises(Refusal, match="no such device"):
        pick_device(absent)


def test_records_go_through_the_front_once_and_train_the_same_model() -> None:
    """Must: give the lanes that the whole model gives. Must not: map records of a round again, or keep dead ones."""
    whole = bench_of("cnn")
    model = build("scatternet", inputs=SHAPES["cnn"], classes=4)
    assign(model, np.random.default_rng(3).normal(0, 0.1, layout_of(model).size).astype(np.float32))
    front, head = parted(model)
    bench = Workbench(head, whole.task, whole.plan, whole.device, whole.engine, front)
    batch, plan = records("cnn", 6, 1), replace(PLAN, dimension=layout_of(model).size + 2)
    together = gradient_lanes(Workbench(model, whole.task, whole.plan, whole.device, whole.engine), batch, plan)
    assert gradient_lanes(bench, bench.seen(batch), plan).total == pytest.approx(together.total, abs=1e-5)
    assert bench.seen(batch) is bench.seen(batch)
    assert bench.seen(batch).ids == batch.ids
    assert whole.seen(batch) is batch
    gone = weakref.ref(bench.seen(batch))
    del batch
    gc.collect()
    assert gone() is None

"""Every kernel is the local loop: same updates, same sums, whatever the sizes of sites, batches, weights and clips."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from client.trainer import Workbench, train_plainly
from common.data import Records
from common.errors import Code, Refusal
from common.learning.losses import LOSSES
from common.parameters import flatten
from common.privacy.clipping.reference_engine import ReferenceEngine
from simulations.kernels import stacks
from simulations.kernels.bunches import bunches
from simulations.kernels.choice import KINDS, distance
from simulations.kernels.convolution import CONVOLUTION
from simulations.kernels.dual import DUAL
from simulations.kernels.factored import Factored
from simulations.kernels.kernel import Course, Kernel, Kind, Lesson, Step, Total
from simulations.kernels.loop import LOOP
from tests.simulations.kernels.courses import STACKS, SUBJECTS, Class, taught

COUNTS = (30, 7, 0, 45, 30, 1, 30, 12)  # a batch has 10


def formed(name: str, records_a_width: float) -> Kind:
    """The dual kernel with the first layer always in one form, whatever pays."""

    def make(course: Course) -> Kernel:
        return OneForm(DUAL.make(course), records_a_width)

    return Kind(name, DUAL.unfit, make)


class OneForm:
    def __init__(self, kernel: Kernel, records_a_width: float):
        self.name, self._kernel, self._width = kernel.name, kernel, records_a_width

    def updates(self, *given: Any) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stacks, "RECORDS_A_WIDTH", self._width)
            return self._kernel.updates(*given)

    def total(self, *given: Any) -> Total:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stacks, "RECORDS_A_WIDTH", self._width)
            return self._kernel.total(*given)


FACTORED, DENSE = formed("factored", 0.0), formed("dense", 1e9)
QUICK = [FACTORED, DENSE, CONVOLUTION]
FAST = [
    pytest.param(kind, name, id=f"{kind.name}-{name}")
    for kind, names in ((FACTORED, STACKS), (DENSE, STACKS), (CONVOLUTION, SUBJECTS))
    for name in names
]


def agree(group: Class, lessons: list[Lesson], found: np.ndarray, right: np.ndarray) -> bool:
    return all(
        distance(mine, theirs, group.parameters, len(lesson.batches)) <= 1.0
        for mine, theirs, lesson in zip(found, right, lessons, strict=True)
    )


def expected(group: Class, lessons: list[Lesson], rows: np.ndarray, clip: float | None) -> np.ndarray:
    """The sum by hand."""
    total = np.zeros(rows.shape[1])
    for row, lesson in zip(rows.astype(np.float64), lessons, strict=True):
        norm = np.linalg.norm(row)
        total += lesson.weight * row * (min(1.0, clip / norm) if clip and norm else 1.0)
    return total


def close(found: np.ndarray, right: np.ndarray, lessons: list[Lesson], rows: np.ndarray) -> bool:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    scale = sum(abs(lesson.weight) * norm for norm, lesson in zip(norms, lessons, strict=True))
    return bool(np.linalg.norm(found - right) <= 1e-5 * scale + 1e-6)


@pytest.mark.parametrize("name", SUBJECTS)
def test_the_loop_is_what_a_site_does(name: str) -> None:
    """Must: give the very bits of `train_plainly`. Must not: depend on the site before."""
    group = taught(SUBJECTS[name])
    lesson = group.lesson(25, seed=5)
    draws = np.random.default_rng((5, 25))
    draws.normal(0, 1, (25, *group.subject.inputs))
    draws.integers(0, group.subject.classes, 25)
    records = Records(lesson.inputs, lesson.labels, torch.zeros(25, dtype=torch.int64), (b"",) * 25)
    model, course = taught(SUBJECTS[name]).course.model, group.course
    bench = Workbench(model, course.task, course.plan, torch.device("cpu"), ReferenceEngine())
    alone = train_plainly(bench, records, draws).astype(np.float32)
    rows = LOOP.make(group.course).updates(group.parameters, [group.lesson(9), lesson])
    assert np.array_equal(rows[1], alone)


@pytest.mark.parametrize(("kind", "name"), FAST)
def test_updates_and_sums_are_those_of_the_loop(kind, name: str) -> None:
    """Sites with fewer records than a batch, with one, with none; more than their steps reach; some of equal size."""
    group = taught(SUBJECTS[name])
    assert kind.unfit(group.course) is None
    lessons, kernel = group.lessons(COUNTS), kind.make(group.course)
    right = LOOP.make(group.course).updates(group.parameters, lessons)
    found = kernel.updates(group.parameters, iter(lessons))
    assert found.dtype == np.float32
    assert agree(group, lessons, found, right)
    assert not found[2].any()
    for clip in (None, 0.05, 1e6):
        total = kernel.total(group.parameters, iter(lessons), clip)
        assert total.sum.dtype == np.float64
        assert close(total.sum, expected(group, lessons, right, clip), lessons, right)
        assert total.usable.tolist() == [True] * len(lessons)
        assert (total.norms is None) is (clip is None)
        if total.norms is not None:
            assert np.allclose(total.norms, np.linalg.norm(right, axis=1), rtol=1e-5, atol=1e-6)


SIZES = st.lists(st.integers(0, 40), min_size=1, max_size=6)


@pytest.mark.parametrize("kind", QUICK, ids=lambda kind: kind.name)
@given(
    counts=SIZES,
    batch=st.integers(1, 17),
    steps=st.integers(1, 6),
    name=st.sampled_from(["logistic", "softmax without bias", "mlp", "deep mlp with gelu"]),
    loss=st.sampled_from(sorted(LOSSES)),
    proximal=st.sampled_from([0.0, 0.5]),
    clip=st.sampled_from([None, 0.01, 0.3]),
)
@settings(max_examples=30)
def test_sizes_batches_steps_losses_and_clips_change_nothing(
    kind, counts: list[int], batch: int, steps: int, name: str, loss: str, proximal: float, clip: float | None
) -> None:
    group = taught(STACKS[name], batch=batch, local_steps=steps, loss=loss, proximal=proximal)
    lessons = [group.lesson(count, seed, seed - 1.5, steps=steps) for seed, count in enumerate(counts)]
    right = LOOP.make(group.course).updates(group.parameters, lessons)
    kernel = kind.make(group.course)
    assert agree(group, lessons, kernel.updates(group.parameters, lessons), right)
    total = kernel.total(group.parameters, lessons, clip)
    assert close(total.sum, expected(group, lessons, right, clip), lessons, right)


def test_records_that_come_twice_in_a_batch_count_twice() -> None:
    group = taught(STACKS["mlp"])
    lesson = group.lesson(12)
    twice = Lesson(lesson.inputs, lesson.labels, (np.array([3, 3, 5]), np.array([5, 0]), np.array([3, 11, 3, 3])))
    right = LOOP.make(group.course).updates(group.parameters, [twice])
    for kind in QUICK:
        assert agree(group, [twice], kind.make(group.course).updates(group.parameters, [twice]), right)


def diverging(group: Class) -> list[Lesson]:
    """Sound sites beside one whose records are not finite, one whose training explodes, one whose squares overflow."""
    broken, wild, large = group.lesson(20, 1), group.lesson(20, 2), group.lesson(9, 6, steps=1)
    broken.inputs[3] = float("nan")
    wild.inputs.mul_(1e30)
    large.inputs.mul_(1e25)
    return [group.lesson(20, 3), broken, group.lesson(20, 4, 2.0), wild, group.lesson(9, 5), large]


@pytest.mark.parametrize(("kind", "name"), [*FAST, pytest.param(LOOP, "mlp", id="loop")])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_sites_that_diverge_add_nothing_and_are_told(kind, name: str, clip: float | None) -> None:
    """Must: leave the sound sites beside them as they are. Must not: call a site lost that the loop does not."""
    group = taught(SUBJECTS[name])
    lessons, kernel = diverging(group), kind.make(group.course)
    right = LOOP.make(group.course).updates(group.parameters, lessons)
    usable = np.isfinite(right).all(1)
    assert usable.tolist()[:3] == [True, False, True]
    found = kernel.updates(group.parameters, lessons)
    assert np.isfinite(found).all(1).tolist() == usable.tolist()
    total = kernel.total(group.parameters, iter(lessons), clip)
    assert total.usable.tolist() == usable.tolist()
    kept = [lesson for lesson, good in zip(lessons, usable, strict=True) if good]
    assert close(total.sum, expected(group, kept, right[usable], clip), kept, right[usable])
    if total.norms is not None:
        assert np.isfinite(total.norms).tolist() == usable.tolist()


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_an_empty_round_and_sites_without_records_give_zeros(kind) -> None:
    group = taught(STACKS["mlp"])
    kernel: Kernel = kind.make(group.course)
    assert kernel.updates(group.parameters, []).shape == (0, group.course.size)
    nobody = kernel.total(group.parameters, iter([]), 1.0)
    assert nobody.usable.shape == (0,)
    for lessons in ([], [group.lesson(0), group.lesson(0, 1)]):
        total = kernel.total(group.parameters, lessons, 1.0)
        assert not total.sum.any()
        assert total.norms is not None
        assert total.norms.tolist() == [0.0] * len(lessons)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_model_of_the_course_is_left_as_it_was(kind) -> None:
    group = taught(SUBJECTS["cnn" if kind is not DUAL else "mlp"])
    before = flatten(group.course.model)
    modes = [module.training for module in group.course.model.eval().modules()]
    kernel = kind.make(group.course)
    kernel.updates(group.parameters * 2, group.lessons(COUNTS))
    kernel.total(group.parameters * 2, group.lessons(COUNTS), 1.0)
    assert np.array_equal(flatten(group.course.model), before)
    assert [module.training for module in group.course.model.modules()] == modes


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_what_does_not_fit_is_refused(kind) -> None:
    group = taught(STACKS["mlp"])
    kernel: Kernel = kind.make(group.course)
    lesson = group.lesson(20)

    def code(parameters: np.ndarray, taught: Lesson, clip: float | None = None) -> Code:
        with pytest.raises(Refusal) as refused:
            kernel.total(parameters, [taught], clip)
        return refused.value.code

    assert code(group.parameters[:-1], lesson) is Code.UPDATE_INVALID
    assert code(group.parameters * np.float32(np.nan), lesson) is Code.UPDATE_INVALID
    assert {code(group.parameters, lesson, clip) for clip in (0.0, -1.0, float("nan"))} == {Code.CONFIG_INVALID}
    for rows in ([20], [-1], [0, 25]):
        batches = (np.array(rows), *lesson.batches)
        assert code(group.parameters, Lesson(lesson.inputs, lesson.labels, batches)) is Code.DATA_INVALID
        few = Lesson(lesson.inputs, lesson.labels, (np.array(rows),))
        assert code(group.parameters, few) is Code.DATA_INVALID


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_sites_come_and_go_while_a_sum_is_formed(kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: take a site's records when its turn comes, and let go of them. Must not: hold all sites of a round."""
    monkeypatch.setattr("simulations.kernels.bunches.FLOATS_AHEAD", 4000)
    group = taught(STACKS["mlp"])
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def lessons() -> Iterator[Lesson]:
        nonlocal most
        for seed in range(60):
            lesson = group.lesson(20 + seed % 3, seed)
            alive.append(weakref.ref(lesson.inputs))
            most = max(most, sum(ref() is not None for ref in alive))
            yield lesson

    total: Total = kind.make(group.course).total(group.parameters, lessons(), 1.0)
    assert len(total.usable) == 60
    assert most <= 12


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_the_same_round_gives_the_same_bits(kind) -> None:
    group = taught(STACKS["mlp"])
    lessons = group.lessons(COUNTS)
    one, two = (kind.make(group.course) for _ in range(2))
    one.total(group.parameters * 3, lessons[:3], 1.0)
    assert np.array_equal(one.total(group.parameters, lessons, 0.1).sum, two.total(group.parameters, lessons, 0.1).sum)
    assert np.array_equal(one.updates(group.parameters, lessons), two.updates(group.parameters, lessons))


def test_values_do_not_print_records() -> None:
    lesson = taught(STACKS["logistic"]).lesson(3)
    assert "tensor" not in repr(lesson)
    assert "array" not in repr(Total(np.ones(2), np.ones(1, bool), None))


def test_the_norm_of_a_site_whose_records_cancel_is_still_right() -> None:
    """Long records that pull in opposite directions: products of float32 alone would not know how long the sum is."""
    group = taught(STACKS["mlp of one layer"], local_steps=1, batch=40)
    draws = np.random.default_rng(0)
    pair = torch.tensor(draws.normal(0, 1, (20, 9)), dtype=torch.float32) * 300
    inputs = torch.cat([pair, pair + 0.01 * torch.randn(20, 9, generator=torch.Generator().manual_seed(1))])
    labels = torch.cat([torch.zeros(20, dtype=torch.int64), torch.ones(20, dtype=torch.int64)])
    lesson = Lesson(inputs, labels, (np.arange(40),))
    zeros = np.zeros_like(group.parameters)  # all slopes are one half, up or down
    exact = inputs.double()[20:].sum(0) - inputs.double()[:20].sum(0)
    norm = 0.2 / 80 * float(exact.norm())
    bunch = next(bunches([(0, lesson)], lambda _: 1))
    layer = Factored(torch.zeros(1, 9), torch.zeros(1), Step(0.2, 0.0))
    layer.open(bunch)
    layer.forward(bunch.rows[0])
    layer.backward(torch.tensor([0.5] * 20 + [-0.5] * 20).view(1, 40, 1) / 40)
    assert float(layer.squares().sqrt()[0]) == pytest.approx(norm, rel=1e-2)
    crude = (layer._like[:-1] * (layer._slopes[:-1] @ layer._slopes[:-1].t())).sum().clamp(min=0).sqrt() * 0.2
    assert abs(float(crude) - norm) > 0.1 * norm
    found = DUAL.make(group.course).total(zeros, [lesson], 1e9)
    assert found.norms is not None
    assert found.norms[0] == pytest.approx(norm, rel=1e-2)

"""Which kernel teaches a run: the fastest that is right; else the loop, and it says why."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from simulations.kernels import choice, products
from simulations.kernels.choice import KINDS, choose, distance
from simulations.kernels.convolution import CONVOLUTION, Convolution, pooled_first
from simulations.kernels.dual import DUAL, Dual
from simulations.kernels.kernel import Course, Kind, Lesson
from tests.simulations.kernels.courses import IMAGES, STACKS, SUBJECTS, Class, taught


def chosen(group: Class, counts: tuple[int, ...] = (20, 15, 12)) -> choice.Choice:
    return choose(group.course, group.parameters, iter(group.lessons(counts)))


@pytest.mark.parametrize("name", SUBJECTS)
def test_models_of_the_catalogue_get_the_fastest_kernel_that_is_right(name: str) -> None:
    found = chosen(taught(SUBJECTS[name]))
    assert found.kernel.name == ("dual" if name in STACKS else "convolution")
    assert str(found) == "dual" or str(found).startswith("convolution (not dual: ")


@pytest.mark.parametrize(
    ("plan", "why"),
    [
        ({"optimizer": "adam"}, "the optimizer adam keeps more than the parameters"),
        ({"optimizer": "momentum"}, "the optimizer momentum keeps more than the parameters"),
        ({"optimizer_settings": {"weight_decay": 0.1}}, "weights decay"),
    ],
)
def test_steps_that_are_not_plain_fall_back_to_the_loop_and_it_says_why(plan: dict[str, Any], why: str) -> None:
    found = chosen(taught(STACKS["mlp"], **plan))
    assert found.kernel.name == "loop"
    assert [each.name for each in found.passed_over] == ["dual", "convolution"]
    assert str(found) == f"loop (not dual: {why}; not convolution: {why})"


def with_model(group: Class, model: nn.Module) -> Class:
    course = Course(model, group.course.task, group.course.plan)
    return group._replace(course=course, parameters=np.full(course.size, 0.1, np.float32))


def frozen() -> nn.Module:
    model = taught(STACKS["mlp"]).model()
    model[1].bias.requires_grad = False  # type: ignore[union-attr, index]
    return model


MODELS = {
    "it does not begin with a flattening of records": nn.Linear(60, 3),
    "no rule for the layer Dropout": nn.Sequential(nn.Flatten(), nn.Linear(60, 3), nn.Dropout(0.5)),
    "no rule for the layer BatchNorm1d": nn.Sequential(nn.Flatten(), nn.Linear(60, 3), nn.BatchNorm1d(3)),
    "an approximate activation": nn.Sequential(nn.Flatten(), nn.Linear(60, 3), nn.GELU("tanh")),
    "its first layer is not linear": nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(60, 3)),
    "it takes a layer twice": nn.Sequential(nn.Flatten(), nn.Linear(60, 60), *[nn.Linear(60, 60)] * 2),
    "some of its parameters are frozen": frozen(),
}


@pytest.mark.parametrize("why", MODELS)
def test_a_model_that_the_dual_form_is_not_right_for_is_named(why: str) -> None:
    assert DUAL.unfit(with_model(taught(STACKS["mlp"]), MODELS[why]).course) == why


def test_what_passes_from_site_to_site_or_is_drawn_at_random_is_left_to_the_loop() -> None:
    for layer, why in ((nn.BatchNorm1d(3), "keeps more than its parameters"), (nn.Dropout(0.5), "dropped at random")):
        group = with_model(taught(STACKS["mlp"]), nn.Sequential(nn.Flatten(), nn.Linear(60, 3), layer))
        assert why in str(CONVOLUTION.unfit(group.course))
        assert chosen(group).kernel.name == "loop"


def test_frozen_parameters_stay_and_do_not_travel() -> None:
    group = with_model(taught(STACKS["mlp"]), frozen())
    assert chosen(group).kernel.name == "convolution"


class Wrong(Dual):
    """Off by a part in a thousand."""

    def updates(self, parameters: np.ndarray, lessons: Any) -> np.ndarray:
        return super().updates(parameters, lessons) * np.float32(1.001)


class Unclipped(Dual):
    """Forgets to clip."""

    def total(self, parameters: np.ndarray, lessons: Any, clip: float | None) -> Any:
        return super().total(parameters, lessons, None)


class Failing(Dual):
    def updates(self, parameters: np.ndarray, lessons: Any) -> np.ndarray:
        raise RuntimeError("shapes differ\nand more")


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Wrong, "its update of the first site differs from the loop's by"),
        (Unclipped, "its update of the first site differs from the loop's by"),
        (Failing, "it fails: shapes differ"),
    ],
)
def test_a_kernel_that_does_not_do_what_the_loop_does_is_not_taken(
    kind: type[Dual], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must: take the next one. Must not: trust a kernel for its name."""
    monkeypatch.setattr(choice, "KINDS", {**KINDS, "dual": Kind("dual", lambda _: None, kind)})
    found = chosen(taught(STACKS["mlp"]))
    assert found.kernel.name == "convolution"
    assert found.passed_over[0].name == "dual"
    assert found.passed_over[0].why.startswith(why)


class OnceAside(Convolution):
    """Rounding takes the other side of a kink at the first site."""

    def updates(self, parameters: np.ndarray, lessons: Any) -> np.ndarray:
        (lesson,) = lessons
        return super().updates(parameters, [lesson]) * np.float32(1.1 if len(lesson.inputs) == 20 else 1.0)


@pytest.mark.parametrize(
    ("counts", "name"), [((20, 15, 12), "convolution"), ((20, 15), "loop"), ((20, 20, 12), "loop")]
)
def test_two_more_sites_decide_where_the_first_differs(
    counts: tuple[int, ...], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    aside = Kind("convolution", lambda _: None, OnceAside)
    monkeypatch.setattr(choice, "KINDS", {"convolution": aside, "loop": KINDS["loop"]})
    assert chosen(taught(IMAGES["cnn"]), counts).kernel.name == name


def test_no_more_sites_are_taken_than_are_compared() -> None:
    group = taught(STACKS["mlp"])
    taken = 0

    def lessons() -> Iterator[Lesson]:
        nonlocal taken
        for lesson in group.lessons((20, 15, 12)):
            taken += 1
            yield lesson

    assert choose(group.course, group.parameters, lessons()).kernel.name == "dual"
    assert taken == 1


def test_sites_that_tell_nothing_leave_the_loop() -> None:
    """Sites without records, and one that diverges: a kernel that nobody has compared is not trusted."""
    group = taught(STACKS["mlp"])
    broken = group.lesson(20)
    broken.inputs.fill_(float("nan"))
    for lessons in ([], [group.lesson(0)], [broken, group.lesson(0)]):
        found = choose(group.course, group.parameters, lessons)
        assert found.kernel.name == "loop"
        assert "cannot be compared" in found.passed_over[0].why
    assert choose(group.course, group.parameters, [broken, group.lesson(9)]).kernel.name == "dual"


def test_distance_allows_a_hundred_thousandth_and_the_rounding_of_parameters() -> None:
    right, parameters = np.ones(4, np.float32), np.zeros(4, np.float32)
    assert distance(right * np.float32(1 + 5e-6), right, parameters, 1) == pytest.approx(0.5, rel=0.1)
    assert distance(right * np.float32(1.01), right, parameters, 1) > 900
    assert distance(right, right, parameters, 1) == 0.0
    assert distance(right, parameters, parameters, 1) == np.inf
    assert distance(right + np.float32(1e-4), right, np.full(4, 1e4, np.float32), 1) < 1.0
    assert not distance(right * np.float32(np.nan), right, parameters, 1) <= 1.0


def test_maximum_before_relu_is_the_same_model() -> None:
    """Must: give the same outputs and slopes, also where units are zero or equal."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))
    turned = pooled_first(deepcopy(model))
    assert [type(layer) for layer in turned][1:3] == [nn.MaxPool2d, nn.ReLU]
    x = torch.randn(5, 1, 8, 8).round()
    x[0] = 0.0
    ends = []
    for each in (model, turned):
        out = each(x)
        ends.append([out, *torch.autograd.grad(out.square().sum(), list(each.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_products_are_right_with_and_without_the_fast_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """The private product of torch may vanish: then the public one is taken, and the numbers stay."""
    x, weight, bias = torch.randn(200, 300), torch.randn(100, 300), torch.randn(100)
    exact = x.double() @ weight.double().t()
    for there in (products._one_dnn(), False):
        monkeypatch.setattr(products, "_one_dnn", lambda there=there: there)
        assert torch.allclose(products.affine(x, weight).double(), exact, atol=1e-3)
        assert torch.allclose(products.affine(x, weight, bias).double(), exact + bias, atol=1e-3)
        assert torch.allclose(products.affine(x, weight.t().contiguous().t()).double(), exact, atol=1e-3)


def unsupported(*_: Any) -> torch.Tensor:
    raise RuntimeError("not built with it")


@pytest.mark.parametrize("broken", [None, lambda *_: torch.zeros(3, 2), unsupported])
def test_a_product_that_is_missing_or_wrong_is_not_used(broken: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if broken is None:
        monkeypatch.setattr(torch.ops, "mkldnn", object())
    else:
        monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", broken)
    products._one_dnn.cache_clear()
    there = products._one_dnn()
    products._one_dnn.cache_clear()
    assert not there

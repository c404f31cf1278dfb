"""The short forms of per-record gradients are the same as all their numbers: norms, sums, and what is left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from common.privacy.clipping import contributions
from common.privacy.clipping.adding import SHRINK, add_clipped
from common.privacy.clipping.contributions import SMALL, Contribution, Dense, Outer, Rows, Stack, Turned, few, stacked


def same(short: Contribution, whole: Dense, factors: Tensor) -> None:
    assert torch.equal(short.dense(), whole.rows) or torch.allclose(short.dense(), whole.rows, rtol=1e-6)
    assert torch.allclose(short.squares(), whole.squares(), rtol=1e-5, atol=1e-9)
    good = factors > 0.2
    for each in (short, short.on(torch.device("cpu"))):
        totals = [torch.ones(whole.rows.shape[1], dtype=torch.float64) for _ in range(2)]
        for total, part in zip(totals, (each, whole), strict=True):
            part.kept(good).add(total, factors)
            part.add(total, factors)  # what was added once is still there
        assert torch.allclose(*totals, rtol=1e-5, atol=1e-6)


@given(seed=some.integers(0, 999), records=some.integers(1, 5), touches=some.integers(0, 12))
def test_rows_that_are_touched_are_the_same_as_the_whole_table(seed: int, records: int, touches: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    record = torch.randint(records, (touches,), generator=stream)
    index = torch.randint(4, (touches,), generator=stream)
    rows = Rows.gathered(record, index, torch.randn(touches, 3, generator=stream), (records, 4))
    factors = torch.rand(records, generator=stream, dtype=torch.float64)
    same(rows, Dense(rows.dense()), factors)


def test_rows_of_which_none_repeats_are_taken_as_they_come() -> None:
    values = torch.randn(4, 3)
    rows = Rows.gathered(torch.tensor([1, 0, 1, 0]), torch.tensor([2, 3, 0, 1]), values, (2, 4))
    right = torch.zeros(2, 4, 3)
    right[[1, 0, 1, 0], [2, 3, 0, 1]] = values
    same(rows, Dense(right.flatten(1)), torch.rand(2, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_outer_product_is_the_same_as_its_numbers(dtype: torch.dtype) -> None:
    left, right = torch.randn(5, 3, dtype=dtype), torch.randn(5, 2, dtype=dtype)
    whole = Dense((left[:, :, None] * right[:, None, :]).flatten(1))
    same(Outer(left, right), whole, torch.rand(5, dtype=torch.float64))


@given(seed=some.integers(0, 999), blocks=some.lists(some.integers(1, 3), min_size=1, max_size=4))
def test_a_stack_of_blocks_is_the_same_as_one(seed: int, blocks: list[int]) -> None:
    rows = torch.randn(sum(blocks), 6, generator=torch.Generator().manual_seed(seed))
    stack = Stack(tuple(Dense(block) for block in rows.split(blocks)))
    same(stack, Dense(rows), torch.rand(len(rows), dtype=torch.float64))


@given(seed=some.integers(0, 999), shape=some.lists(some.integers(1, 4), min_size=2, max_size=4), data=some.data())
def test_a_turned_gradient_comes_back_in_the_order_of_its_parameter(
    seed: int, shape: list[int], data: some.DataObject
) -> None:
    rows = torch.randn(5, *shape, generator=torch.Generator().manual_seed(seed))
    axes = data.draw(some.permutations(range(len(shape))))
    right = rows.permute(0, *(axis + 1 for axis in axes)).flatten(1)
    turned = Turned(Dense(rows.flatten(1)), tuple(shape), tuple(axes))
    same(turned, Dense(right), torch.rand(5, dtype=torch.float64))


@pytest.mark.parametrize(("width", "kind"), [(3, Dense), (SMALL + 1, Stack)])
def test_gradients_made_for_some_records_at_a_time_keep_their_order(width: int, kind: type) -> None:
    x, g = torch.randn(7, width), torch.randn(7)
    found = stacked(lambda some, out: some * out[:, None], x, g, 3)
    assert isinstance(found, kind)
    assert torch.equal(found.dense(), x * g[:, None])


@given(seed=some.integers(0, 99), width=some.sampled_from([1, 5, 256, SMALL, SMALL + 1, SMALL + 255, 5000, 70_001]))
@settings(max_examples=40)
def test_norms_are_right_to_a_fraction_of_what_clipping_allows_for(seed: int, width: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    rows = torch.randn(4, width, generator=stream).exp() * 10.0 ** (seed % 9 - 4)
    exact = rows.double().square().sum(1)
    assert float((Dense(rows).squares() / exact - 1).abs().max()) <= (1 - SHRINK) / 2


@pytest.mark.parametrize("width", [3, SMALL + 300])
@pytest.mark.parametrize("size", [1e-30, 1e-22, 1e25, 3e38])
def test_norms_beyond_the_range_of_float32_squares_are_exact(width: int, size: float) -> None:
    rows = torch.ones(2, width)
    rows[1] = size
    squares = Dense(rows).squares()
    assert squares.tolist() == pytest.approx([width, width * float(rows[1, 0]) ** 2], rel=1e-6)


def test_a_number_that_is_none_shows_in_the_norm_wherever_it_stands() -> None:
    for place in (0, 255, 256, SMALL, SMALL + 299):
        for broken in (math.nan, math.inf):
            rows = torch.ones(2, SMALL + 300)
            rows[1, place] = broken
            assert Dense(rows).squares().isfinite().tolist() == [True, False]


@dataclass(frozen=True)
class Given:
    """Gradients of three parameters, two of them small, and the plain way to clip them."""

    rows: tuple[Tensor, ...]
    losses: Tensor

    def right(self, bound: float) -> Tensor:
        whole = torch.cat([part.double() for part in self.rows], 1)
        norms = whole.norm(dim=1)
        good = norms.isfinite() & self.losses.isfinite()
        return (whole[good] * (bound / norms[good]).clamp(max=1.0)[:, None]).sum(0)


@given(seed=some.integers(0, 999), broken=some.sampled_from([None, "small", "large", "loss"]))
@settings(max_examples=30)
def test_small_parameters_that_are_added_together_are_clipped_with_all_others(seed: int, broken: str | None) -> None:
    stream = torch.Generator().manual_seed(seed)
    widths = (3, SMALL + 1, 1, SMALL)
    rows = tuple(torch.randn(5, width, generator=stream) for width in widths)
    losses = torch.zeros(5)
    if broken == "loss":
        losses[2] = math.nan
    elif broken:
        rows[1 if broken == "large" else 2][2, 0] = math.inf
    total = torch.zeros(sum(widths), dtype=torch.float64)
    good = add_clipped(total.split(widths), [Dense(part) for part in rows], losses, 30.0)
    assert good.tolist() == [True, True, broken is None, True, True]
    assert torch.allclose(total, Given(rows, losses).right(30.0), rtol=1e-5, atol=1e-6)


def test_a_parameter_that_no_record_reached_gets_nothing() -> None:
    total = torch.zeros(5, dtype=torch.float64)
    good = add_clipped(total.split([2, 3]), [None, Dense(torch.ones(4, 3))], torch.zeros(4), 100.0)
    assert good.all()
    assert total.tolist() == [0, 0, 4, 4, 4]


def test_a_graphics_card_takes_more_at_a_time() -> None:
    assert few(1 << 18, 1 << 16, torch.device("cpu")) == 4
    assert few(1 << 18, 1 << 16, torch.device("cuda")) == 4 * contributions.ON_CARD
    assert few(8, 100, torch.device("cpu")) == 1

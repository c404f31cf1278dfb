"""Per-record gradients of single layers, over their settings: equal to one record at a time in float64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from opacus.layers import DPGRU, DPLSTM, DPRNN
from torch import nn

from common.errors import Refusal
from common.privacy.clipping import convolutions, patches
from common.privacy.clipping.bookkeeping_engine import BookKeepingEngine
from common.privacy.clipping.engine import ClipEngine
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.clipping.reference_engine import ReferenceEngine
from common.privacy.clipping.vmap_engine import VmapEngine

FASTER: list[Any] = [BookKeepingEngine(3), OpacusEngine("faster", 3)]


class Wrapped(nn.Module):
    """A layer behind one whose input gradient it must give, with one output a record."""

    def __init__(self, layer: nn.Module, before: nn.Module | None = None):
        super().__init__()
        self.before, self.layer = before or nn.Identity(), layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.layer(self.before(x))
        found = found[0] if isinstance(found, tuple) else found
        return found.flatten(1).cos()


def loss(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return (outputs * torch.linspace(0.5, 1.5, outputs.shape[1], dtype=outputs.dtype)).sum(1) * (labels + 1)


def agree(model: nn.Module, inputs: torch.Tensor, engines: list[ClipEngine], bound: float = 0.7) -> None:
    model = model.double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    labels = torch.arange(len(inputs))
    for limit, each in itertools.product((bound, 1e12), engines):
        right, found = (one.clipped_sum(model, loss, inputs, labels, limit) for one in (ReferenceEngine(), each))
        largest = np.abs(right.total).max(initial=1e-9)
        assert np.abs(found.total - right.total).max(initial=0) <= 1e-9 * largest, each
        assert torch.allclose(found.outputs, right.outputs, rtol=1e-9, atol=1e-12)


@given(data=some.data())
@settings(max_examples=60)
def test_convolutions_of_every_shape(data: some.DataObject) -> None:
    dims = data.draw(some.integers(1, 3))
    groups = data.draw(some.sampled_from([1, 1, 2, 3]))
    channels, out = (groups * data.draw(some.integers(1, 6)) for _ in range(2))
    kernel = [data.draw(some.integers(1, 3)) for _ in range(dims)]
    dilation = [data.draw(some.integers(1, 2)) for _ in range(dims)]
    padding = data.draw(some.sampled_from(["numbers", "same", "valid"]))
    stride = [1 if padding == "same" else data.draw(some.integers(1, 3)) for _ in range(dims)]
    sizes = [1 + (k - 1) * d + data.draw(some.integers(0, 4)) for k, d in zip(kernel, dilation, strict=True)]
    layer = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1](
        channels,
        out,
        kernel,  # type: ignore[arg-type]
        stride=stride,  # type: ignore[arg-type]
        dilation=dilation,  # type: ignore[arg-type]
        padding=[data.draw(some.integers(0, 2)) for _ in range(dims)] if padding == "numbers" else padding,  # type: ignore[arg-type]
        groups=groups,
        bias=data.draw(some.booleans()),
        padding_mode=data.draw(some.sampled_from(["zeros", "zeros", "circular", "replicate"])),
    )
    first = data.draw(some.booleans())
    model = Wrapped(layer, None if first else nn.GroupNorm(1, channels))
    agree(model, torch.randn(4, channels, *(size + 2 for size in sizes)), FASTER)


@pytest.mark.parametrize("size", [9, 12, 13])
@pytest.mark.parametrize(("kernel", "stride"), [(8, 2), (6, 3), ((4, 3), (2, 3)), ((2, 4), (1, 2))])
def test_few_channels_and_a_stride_that_divides_the_kernel(size: int, kernel: Any, stride: Any) -> None:
    agree(Wrapped(nn.Conv2d(2, 4, kernel, stride=stride, padding=2, groups=2)), torch.randn(4, 2, size, size), FASTER)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.Conv2d, nn.Conv3d])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"padding": 1}, {"padding": "same"}])
@pytest.mark.parametrize("records", [1, 3, 4])
def test_many_channels_and_few_spots(kind: Any, options: dict[str, Any], records: int, monkeypatch: Any) -> None:
    """Patches of neighbouring channels; three records make blocks of two and of one."""
    layer = kind(5, 40, 2, **options)
    monkeypatch.setattr(patches, "AT_ONCE", 2 * 40 * layer.weight[0].numel())
    model = Wrapped(layer, nn.GroupNorm(1, 5))
    inputs = torch.randn(4, 5, *[4] * (layer.weight.dim() - 2))
    agree(model, inputs, [replace(each, records=records) for each in FASTER])


@pytest.mark.parametrize("few", [1, 10**9])
def test_the_cut_of_grouped_records_changes_nothing(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolutions, "GROUPED_AT_ONCE", few)
    agree(Wrapped(nn.Conv2d(6, 4, 3, padding=1), nn.GroupNorm(1, 6)), torch.randn(5, 6, 7, 7), FASTER)


@given(
    rows=some.sampled_from([(), (1,), (5,), (2, 3)]), inputs=some.integers(1, 6), outputs=some.integers(1, 6),
    bias=some.booleans(), bound=some.floats(1e-3, 1e3),
)  # fmt: skip
@settings(max_examples=30)
def test_linear_layers_over_any_rows(
    rows: tuple[int, ...], inputs: int, outputs: int, bias: bool, bound: float
) -> None:
    model = Wrapped(nn.Linear(inputs, outputs, bias=bias), nn.Linear(inputs, inputs))
    agree(model, torch.randn(4, *rows, inputs), FASTER, bound)


@given(
    kind=some.sampled_from(["group", "instance", "layer", "layers", "rms", "rms two"]), width=some.integers(2, 5),
    affine=some.booleans(), first=some.booleans(),
)  # fmt: skip
@settings(max_examples=30)
def test_norms(kind: str, width: int, affine: bool, first: bool) -> None:
    layer: Callable[[], nn.Module] = {
        "group": lambda: nn.GroupNorm(2, 4, affine=affine),
        "instance": lambda: nn.InstanceNorm1d(4, affine=affine),
        "layer": lambda: nn.LayerNorm(width, elementwise_affine=affine, bias=first),
        "layers": lambda: nn.LayerNorm((4, width), eps=1e-2),
        "rms": lambda: nn.RMSNorm(width, elementwise_affine=affine),
        "rms two": lambda: nn.RMSNorm((4, width), eps=1e-2),
    }[kind]
    made = layer()
    for parameter in made.parameters():
        nn.init.normal_(parameter)
    model = Wrapped(made, None if first else nn.Conv1d(4, 4, 1))
    agree(model, torch.randn(4, 4, width), [BookKeepingEngine(3), OpacusEngine("faster", 3)])


@given(
    length=some.sampled_from([(), (1,), (6,), (2, 3)]), words=some.integers(1, 5),
    padding=some.sampled_from([None, 0]), seed=some.integers(0, 99),
)  # fmt: skip
@settings(max_examples=30)
def test_embeddings_where_words_repeat(length: tuple[int, ...], words: int, padding: int | None, seed: int) -> None:
    table = nn.Embedding(words, 3, padding_idx=padding)
    stream = torch.Generator().manual_seed(seed)
    agree(Wrapped(nn.Linear(3, 2), table), torch.randint(words, (4, *length), generator=stream), [BookKeepingEngine(3)])


@pytest.mark.parametrize("kind", [DPRNN, DPLSTM, DPGRU])
@pytest.mark.parametrize("both_ways", [False, True])
def test_recurrent_layers_that_use_a_weight_at_every_step(kind: type[nn.Module], both_ways: bool) -> None:
    layer = kind(3, 4, num_layers=2, batch_first=True, bidirectional=both_ways)
    agree(Wrapped(layer, nn.Linear(3, 3)), torch.randn(5, 7, 3), [*FASTER, VmapEngine(3)])


def test_a_table_that_is_tied_to_the_last_layer() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.out = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.out.weight = self.table.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.table(x).tanh()).flatten(1)

    agree(Tied(), torch.randint(5, (4, 6)), [BookKeepingEngine(3), VmapEngine(3)])


def test_torch_func_takes_what_has_no_rule() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(3))
            self.bilinear = nn.Bilinear(3, 3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bilinear(x * self.scale, x)

    agree(Own(), torch.randn(4, 3), [VmapEngine(3)])


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [
        (nn.Linear(3, 2), torch.randn(4, 3)),
        (nn.Sequential(nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.Conv2d(3, 8, 2)), torch.randn(4, 1, 6, 6)),
        (nn.Sequential(nn.Conv1d(8, 8, 3, groups=2)), torch.randn(4, 8, 6)),
        (nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.RMSNorm(3)), torch.randn(4, 5, 3)),
    ],
)
def test_a_broken_record_does_not_reach_the_others(layer: nn.Module, inputs: torch.Tensor) -> None:
    """All records go through one grouped convolution: not a number must stay in its group."""
    model, labels = Wrapped(layer), torch.arange(4)
    for each, value in itertools.product([*FASTER, VmapEngine(4)], (float("nan"), float("inf"))):
        broken = inputs.clone()
        broken[1] = value
        rest = [0, 2, 3]
        found = each.clipped_sum(model, loss, broken, labels, 1.0)
        right = each.clipped_sum(model, loss, inputs[rest], labels[rest], 1.0)
        assert found.usable.tolist() == [True, False, True, True]
        assert np.allclose(found.total, right.total, rtol=1e-5, atol=1e-7)


def test_book_keeping_refuses_what_it_would_get_wrong() -> None:
    """Must: name the layer. Must not: guess which rows belong to a record."""

    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.place = nn.Embedding(7, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + self.place(torch.arange(7))).flatten(1)

    class Twisted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * 2

    cases = [
        (Positions(), torch.randn(4, 7, 2), "Embedding not clipped"),
        (nn.Sequential(Twisted(2, 2)), torch.randn(4, 2), r"Layer 0 \(Twisted\)"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))), torch.randn(4, 2), "no rule"),
        (nn.Bilinear(2, 2, 2), torch.randn(4, 2), "no rule"),
    ]
    for model, inputs, told in cases:
        with pytest.raises(Refusal, match=told):
            BookKeepingEngine().clipped_sum(model, loss, inputs, torch.arange(4), 1.0)
    agree(Positions(), cases[0][1], [VmapEngine(3)])

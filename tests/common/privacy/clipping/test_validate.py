"""Which models are refused before a record is read, and what the refusal says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.errors import Code, Refusal
from common.learning.tasks import task
from common.models.catalogue import build
from common.privacy.clipping.agreement import check_engine
from common.privacy.clipping.engine import ClippedSum
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.clipping.probes import Probe
from common.privacy.clipping.validate import validate
from common.privacy.clipping.vmap_engine import VmapEngine


class Centred(nn.Module):
    """Subtracts the mean of the batch: mixes records without any parameter or buffer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0)


class Counting(nn.Module):
    """Keeps what it saw in a buffer that does not travel."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += x.sum()
        return x


class Owner(nn.Module):
    """A parameter of its own and, if asked, a buffer."""

    def __init__(self, *, buffer: bool, persistent: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))
        if buffer:
            self.register_buffer("shift", torch.zeros(4), persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


@pytest.mark.parametrize(
    ("layer", "told", "instead"),
    [
        (nn.BatchNorm1d(4), "other records", "GroupNorm"),
        (nn.BatchNorm1d(4, affine=False), "other records", "GroupNorm"),
        (nn.BatchNorm1d(4, affine=False, track_running_stats=False), "other records", "GroupNorm"),
        (frozen(nn.BatchNorm1d(4)), "other records", "GroupNorm"),
        (nn.SyncBatchNorm(4), "other records", "GroupNorm"),
        (nn.InstanceNorm1d(4, track_running_stats=True), "running statistics", "track_running_stats"),
        (nn.ReLU(inplace=True), "overwrites", "inplace=False"),
        (Owner(buffer=True, persistent=True), "travel", "persistent=False"),
        (nn.LSTM(4, 4), "no per-record gradient", "DPLSTM"),
        (nn.MultiheadAttention(4, 1), "no per-record gradient", "Attention"),
        (Centred(), "output of another", "mixes"),
        (Counting(), "forward pass changes it", "constant"),
    ],
)
def test_a_layer_that_mixes_or_keeps_records_is_refused(layer: nn.Module, told: str, instead: str) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(layer), nn.Linear(4, 2))
    with pytest.raises(Refusal, match=told) as refused:
        validate(model, (4,))
    assert refused.value.code is Code.MODEL_INVALID
    assert instead in refused.value.do


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.Embedding(5, 3, scale_grad_by_freq=True), "how often others"),
        (nn.Embedding(5, 3, max_norm=1.0), "rows of its table"),
        (nn.EmbeddingBag(5, 3, sparse=True), "sparse"),
    ],
)
def test_a_table_whose_gradient_or_rows_depend_on_others_is_refused(layer: nn.Module, told: str) -> None:
    """Outputs do not show the first: only the gradient of one record depends on the others."""
    with pytest.raises(Refusal, match=told):
        validate(nn.Sequential(layer, nn.Flatten()), (4,), tokens=5)
    validate(nn.Sequential(nn.Embedding(5, 3), nn.Flatten()), (4,), tokens=5)


@pytest.mark.parametrize("layer", [Owner(buffer=True), Owner(buffer=False), nn.PReLU(), nn.ConvTranspose1d(1, 1, 1)])
def test_a_layer_without_a_rule_is_accepted_if_torch_func_gives_its_gradients(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (1, 4)), layer, nn.Flatten(), nn.Linear(4, 2))
    validate(model, (4,))
    check_engine(VmapEngine(), model, task(2).losses, Probe((4,)))


def test_a_layer_that_nothing_can_clip_is_refused_by_its_path() -> None:
    class Jumping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight * (2.0 if float(x.detach().sum()) > -1e9 else 1.0)  # torch.func has no branches

    with pytest.raises(Refusal, match=r"Layer 1 \(Jumping\): no per-record gradient"):
        validate(nn.Sequential(nn.Linear(4, 4), Jumping()), (4,))


def test_the_refusal_names_the_layer_by_its_path() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh(), nn.BatchNorm1d(4)))
    with pytest.raises(Refusal, match=r"Layer 1\.1 \(BatchNorm1d\)"):
        validate(model, (4,))


def test_dropout_is_accepted_and_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.LayerNorm(8), nn.Linear(8, 2)).eval()
    state = torch.get_rng_state()
    validate(model, (4,))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training


def test_a_model_that_cannot_take_a_single_record_is_refused() -> None:
    """Poisson sampling draws batches of one; torch's GroupNorm with one unit a group raises there."""
    model = nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(8, 8), nn.Linear(8, 2))
    with pytest.raises(Refusal, match="cannot take inputs"):
        validate(model, (4,))


def test_a_model_for_other_inputs_is_refused() -> None:
    with pytest.raises(Refusal, match="cannot take inputs"):
        validate(nn.Linear(4, 2), (5,))


def test_an_engine_that_is_right_for_the_model_passes() -> None:
    model = build("cnn", inputs=(1, 8, 8), classes=10)
    assert check_engine(OpacusEngine(), model, task(10).losses, Probe((1, 8, 8), 10)) < 1e-5


def test_an_engine_that_is_wrong_for_the_model_is_refused() -> None:
    class Doubling(OpacusEngine):
        def clipped_sum(self, *given: object) -> ClippedSum:  # type: ignore[override]
            found = super().clipped_sum(*given)  # type: ignore[arg-type]
            return ClippedSum(found.total * 2, found.losses, found.outputs, found.usable)

    with pytest.raises(Refusal, match="differs from one record at a time"):
        check_engine(Doubling(), build("logistic", inputs=(3,), classes=2), task(2).losses, Probe((3,), 2))

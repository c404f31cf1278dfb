"""Repair: the same function in another form, checked; another function only on request and said so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

from common.errors import Refusal
from common.privacy.clipping import repair as repair_module
from common.privacy.clipping.agreement import check_engine
from common.privacy.clipping.attention import Attention
from common.privacy.clipping.bookkeeping_engine import BookKeepingEngine
from common.privacy.clipping.probes import Probe
from common.privacy.clipping.repair import repair
from common.privacy.clipping.validate import validate


class First(nn.Module):
    """A layer that returns a tuple, in a model; `over` are the arguments of attention."""

    def __init__(self, layer: nn.Module, *, attends: bool = False, batch_first: bool = True, **over: Any) -> None:
        super().__init__()
        self.layer, self.attends, self.batch_first, self.over = layer, attends, batch_first, over
        self.out = nn.LazyLinear(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        found = self.layer(x, x, x, **self.over)[0] if self.attends else self.layer(x)[0]
        return self.out((found if self.batch_first else found.transpose(0, 1)).mean(1))


def made(model: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    model(torch.randn(2, *shape))
    return model


def losses(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return outputs.square().sum(1) * (1 + labels)


def trains(model: nn.Module, shape: tuple[int, ...]) -> None:
    validate(model, shape)
    assert check_engine(BookKeepingEngine(), model, losses, Probe(shape)) <= 1e-5


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("mask", [None, "causal", "numbers"])
def test_attention_keeps_its_function_in_both_orders(
    batch_first: bool, bias: bool, need_weights: bool, mask: str | None
) -> None:
    over: dict[str, Any] = {
        None: {},
        "causal": {"attn_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)},
        "numbers": {"attn_mask": torch.randn(5, 5)},
    }[mask]
    layer = nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first, dropout=0.1)
    model = made(First(layer, attends=True, batch_first=batch_first, need_weights=need_weights, **over), (5, 8))
    found = repair(model, (5, 8))
    assert found.changes == ("Layer layer (MultiheadAttention) became Attention with the same weights",)
    assert isinstance(model.layer, nn.MultiheadAttention)
    x = torch.randn(3, 5, 8)
    assert torch.allclose(model.eval()(x), found.model.eval()(x), atol=1e-6)
    trains(found.model, (5, 8))


@pytest.mark.parametrize("average", [True, False])
def test_masks_and_weights_are_those_of_torch(average: bool) -> None:
    theirs = nn.MultiheadAttention(8, 2, kdim=3, vdim=4, batch_first=True)
    ours = repair_module._attention(theirs)
    q, k, v = torch.randn(3, 5, 8), torch.randn(3, 6, 3), torch.randn(3, 6, 4)
    hidden = torch.zeros(3, 6, dtype=torch.bool)
    hidden[1, 4:] = True
    for mask in (torch.randn(5, 6), torch.randn(6, 5, 6)):
        given_to_both = {"key_padding_mask": hidden.float() * -1e9, "attn_mask": mask, "average_attn_weights": average}
        for mine, right in zip(ours(q, k, v, **given_to_both), theirs(q, k, v, **given_to_both), strict=True):
            assert torch.allclose(mine, right, atol=1e-6)


def test_a_causal_hint_without_a_mask_hides_what_comes_later() -> None:
    layer = Attention(8, 2)
    x = torch.randn(3, 5, 8)
    mask = torch.ones(5, 5, dtype=torch.bool).triu(1)
    assert torch.allclose(layer(x, x, x, is_causal=True)[0], layer(x, x, x, attn_mask=mask)[0])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_encoders_of_torch_keep_their_function(batch_first: bool, norm_first: bool) -> None:
    one = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first, norm_first=norm_first)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stack, self.out = nn.TransformerEncoder(one, 2), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x if batch_first else x.transpose(0, 1)
            hidden = torch.zeros(x.shape[0 if batch_first else 1], 5, dtype=torch.bool)
            hidden[:, 4] = True
            found = self.stack(x, src_key_padding_mask=hidden)
            return self.out((found if batch_first else found.transpose(0, 1))[:, :4].mean(1))

    model = Encoder()
    found = repair(model, (5, 8))
    x = torch.randn(3, 5, 8)
    with torch.no_grad():
        assert torch.allclose(model.eval()(x), found.model.eval()(x), atol=1e-5)
    assert len(found.changes) == 2


@given(
    kind=some.sampled_from([nn.LSTM, nn.GRU, nn.RNN]), layers=some.integers(1, 2), bias=some.booleans(),
    both=some.booleans(), first=some.booleans(), relu=some.booleans(),
)  # fmt: skip
@settings(max_examples=24)
def test_recurrent_layers_keep_their_function(
    kind: type[nn.RNNBase], layers: int, *, bias: bool, both: bool, first: bool, relu: bool
) -> None:
    more = {"nonlinearity": "relu"} if relu and kind is nn.RNN else {}
    layer = kind(3, 4, num_layers=layers, bias=bias, bidirectional=both, batch_first=first, **more)  # type: ignore[arg-type]
    model = made(First(layer, batch_first=first), (5, 3))
    found = repair(model, (5, 3))
    x = torch.randn(3, 5, 3)
    assert torch.allclose(model(x), found.model(x), atol=1e-6)
    trains(found.model, (5, 3))


def test_overwriting_and_running_statistics_end_and_what_is_frozen_stays_frozen() -> None:
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.ReLU(inplace=True), nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
        nn.Flatten(), nn.Linear(16, 2),
    )  # fmt: skip
    model[2].requires_grad_(False)
    found = repair(model, (2, 6))
    assert [change.split(" ")[1] for change in found.changes] == ["2", "1"]
    assert model[1].inplace is True
    assert found.model[1].inplace is False
    assert not found.model[2].weight.requires_grad
    assert "2.running_mean" not in found.model.state_dict()
    assert "2.running_mean" in model.state_dict()
    trains(found.model, (2, 6))


def test_frozen_attention_and_recurrence_stay_frozen_and_shared_layers_shared() -> None:
    shared = nn.LSTM(3, 3, batch_first=True).requires_grad_(False)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = shared, shared, nn.Linear(3, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.b(self.a(x)[0])[0].mean(1))

    found = repair(Twice(), (5, 3)).model
    assert found.a is found.b
    assert [name for name, p in found.named_parameters() if p.requires_grad] == ["out.weight", "out.bias"]
    attention = First(nn.MultiheadAttention(4, 1, batch_first=True).requires_grad_(False), attends=True)
    mended = repair(made(attention, (5, 4)), (5, 4)).model
    assert not any(p.requires_grad for p in mended.layer.parameters())


def test_batch_norm_is_replaced_only_on_request_and_the_change_says_that_it_is_another_function() -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(16, 2))
    assert repair(model, (2, 6)).changes == ()
    with pytest.raises(Refusal, match="other records") as refused:
        validate(repair(model, (2, 6)).model, (2, 6))
    assert "another function" in refused.value.do
    found = repair(model, (2, 6), norms=True)
    assert found.changes == ("Layer 1 (BatchNorm1d) became GroupNorm, which is another function",)
    trains(found.model, (2, 6))


def test_a_repair_that_would_change_the_function_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = made(First(nn.MultiheadAttention(4, 1, batch_first=True), attends=True), (5, 4))
    wrong = lambda layer: Attention(4, 1)  # noqa: E731  # other weights
    monkeypatch.setitem(repair_module._KEEPING, nn.MultiheadAttention, wrong)
    with pytest.raises(Refusal, match="would differ"):
        repair(model, (5, 4))


@pytest.mark.parametrize(
    ("layer", "told"),
    [
        (nn.MultiheadAttention(4, 1, add_bias_kv=True), "no equal form"),
        (nn.MultiheadAttention(4, 1, add_zero_attn=True), "no equal form"),
        (nn.LSTM(4, 4, proj_size=2), "no equal form"),
    ],
)
def test_what_has_no_equal_form_is_refused(layer: nn.Module, told: str) -> None:
    with pytest.raises(Refusal, match=told):
        repair(First(layer), (5, 4))
    with pytest.raises(Refusal, match="whole model"):
        repair(nn.LSTM(3, 3), (5, 3))

"""The three models that private steps are measured on, small enough for one processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.privacy.clipping.attention import Attention
from common.privacy.clipping.probes import Probe
from common.randomness import child


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and the batch that it is trained with.

    title    in words      make  a new one with random weights      probe  what it takes      records  of a step
    """

    title: str
    make: Callable[[], nn.Module]
    probe: Probe
    records: int

    def model(self) -> nn.Module:
        """The model with the same weights every time; torch's own seed is left as it was."""
        before = torch.default_generator.get_state()
        try:
            torch.default_generator.manual_seed(child(0, "bench", self.title).initial_seed())
            return self.make()
        finally:
            torch.default_generator.set_state(before)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Random records and labels."""
        return self.probe.inputs(self.records, "bench"), self.probe.labels(self.records, "bench")


def small_cnn() -> nn.Module:
    """Two convolutions and two linear layers, 26 010 parameters. Source: Papernot et al. 2021, table 1."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 8, stride=2, padding=3),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.Tanh(),
        nn.MaxPool2d(2, stride=1),
        nn.Flatten(),
        nn.Linear(512, 32),
        nn.Tanh(),
        nn.Linear(32, 10),
    )


class _Residual(nn.Module):
    """Two convolutions with group norm, added to what came in."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, outputs) for _ in range(2)])
        self.across = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, h, w] to [n, outputs, h / stride, w / stride]."""
        found = self.norms[1](self.second(functional.relu(self.norms[0](self.first(x)))))
        return functional.relu(found + self.across(x))


def residual() -> nn.Module:
    """ResNet-14 with group norm for 32x32 pixels, 175 066 parameters. Source: He et al. 2016, section 4.2."""
    blocks: list[nn.Module] = []
    inputs = 16
    for outputs, stride in ((16, 1), (16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        blocks.append(_Residual(inputs, outputs, stride))
        inputs = outputs
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.GroupNorm(8, 16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class _Layer(nn.Module):
    """Attention and two linear layers, each after a norm and added to what came in."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(2)])
        self.attention = Attention(width, heads)
        self.wide, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """[n, t, width], the same shape back."""
        within = self.norms[0](x)
        x = x + self.attention(within, within, within)[0]
        out: Tensor = x + self.narrow(functional.gelu(self.wide(self.norms[1](x))))
        return out


class Transformer(nn.Module):
    """Two encoder layers of width 128 over 64 words of 1000, 534 282 parameters. Source: Vaswani et al. 2017."""

    def __init__(self, width: int = 128, words: int = 1000, length: int = 64, classes: int = 10):
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*[_Layer(width, 4, 4 * width) for _ in range(2)])
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Words int64 [n, t] to logits [n, classes]."""
        places = torch.arange(x.shape[1], device=x.device).repeat(len(x), 1)
        found: Tensor = self.out(self.norm(self.layers(self.words(x) + self.places(places))).mean(1))
        return found


SUBJECTS: Mapping[str, Subject] = {
    "cnn": Subject(
        title="Small CNN, 28x28 pixels, 256 records", make=small_cnn, probe=Probe((1, 28, 28), 10), records=256
    ),
    "resnet": Subject(
        title="ResNet-14 with group norm, 32x32 pixels, 64 records",
        make=residual,
        probe=Probe((3, 32, 32), 10),
        records=64,
    ),
    "transformer": Subject(
        title="Transformer, width 128, 64 words, 64 records",
        make=Transformer,
        probe=Probe((64,), 10, tokens=1000),
        records=64,
    ),
}

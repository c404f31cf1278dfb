"""Which engine a site takes: right ones only, the fastest of them, and always the same one where noise is replayed."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import pytest
import torch
from torch import nn

from common.config import load
from common.errors import Code, Refusal
from common.learning.tasks import task
from common.models.catalogue import build
from common.privacy.clipping import choice
from common.privacy.clipping.agreement import check_engine
from common.privacy.clipping.bookkeeping_engine import BookKeepingEngine
from common.privacy.clipping.choice import AUTO, ENGINES, Work, choose
from common.privacy.clipping.engine import ClippedSum
from common.privacy.clipping.names import EngineName
from common.privacy.clipping.opacus_engine import OpacusEngine
from common.privacy.clipping.probes import Probe
from common.privacy.clipping.reference_engine import ReferenceEngine
from common.privacy.clipping.vmap_engine import VmapEngine


@pytest.fixture(autouse=True)
def nothing_chosen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_CHOSEN", {})


def work(shape: tuple[int, ...] = (6,), classes: int = 3, records: int = 30) -> Work:
    return Work(key=b"job", losses=task(classes).losses, probe=Probe(shape, classes), records=records)


def mlp() -> nn.Module:
    return build("mlp", inputs=(6,), classes=3)


class Doubling(BookKeepingEngine):
    """Wrong by a factor of two."""

    def clipped_sum(self, *given: Any) -> ClippedSum:
        found = super().clipped_sum(*given)
        return ClippedSum(found.total * 2, found.losses, found.outputs, found.usable)


def test_the_names_are_those_that_a_site_may_write() -> None:
    assert {*ENGINES, "auto"} == set(get_args(EngineName))


@pytest.mark.parametrize("name", ENGINES)
def test_a_named_engine_is_taken(name: EngineName) -> None:
    assert isinstance(choose(name, mlp(), work(), measured=True), type(ENGINES[name](None)))


def test_auto_takes_an_engine_that_is_right_and_decides_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = mlp()
    first = choose("auto", model, work(), measured=True)
    assert isinstance(first, (BookKeepingEngine, OpacusEngine, VmapEngine))
    monkeypatch.setattr(choice, "check_engine", lambda *_: pytest.fail("checked again"))
    assert choose("auto", model, work(), measured=True) is first
    assert choose("auto", model, work(records=31), measured=True) is first  # a site of nearly the same size


def test_where_nothing_is_measured_the_first_that_is_right_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "fastest", lambda *_: pytest.fail("measured"))
    assert choose("auto", mlp(), work(), measured=False) == BookKeepingEngine()


def test_the_fastest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(BookKeepingEngine):
        def clipped_sum(self, *given: Any) -> ClippedSum:
            for _ in range(100):
                super().clipped_sum(*given)
            return super().clipped_sum(*given)

    monkeypatch.setattr(choice, "ENGINES", {"bk": Slow, "opacus": ENGINES["opacus"], "vmap": Slow})
    assert isinstance(choose("auto", mlp(), work(), measured=True), OpacusEngine)


@pytest.mark.parametrize(
    ("shape", "count", "sizes"),
    [
        ((784,), 256, [24, 64, 128, 512]),
        ((784,), 64, [24, 128]),
        ((784,), 16, [None]),
        ((3, 224, 224), 256, [24, 64, 128]),
    ],
)
def test_a_whole_step_is_tried_at_once_where_its_records_are_small(
    shape: tuple[int, ...], count: int, sizes: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must: leave room for a step that chance made larger. Must not: hold hundreds of large images."""
    tried: list[int | None] = []

    class Told(BookKeepingEngine):
        def clipped_sum(self, *_: Any) -> ClippedSum:
            tried.append(self.records)
            return ClippedSum(*[None] * 4)  # type: ignore[arg-type]  # nobody looks

    monkeypatch.setattr(choice, "ENGINES", {"bk": Told})
    asked = Work(key=b"", losses=task(2).losses, probe=Probe(shape), records=count)
    choice.fastest(["bk"], mlp(), asked, torch.device("cpu"))
    assert list(dict.fromkeys(tried)) == sizes


@pytest.mark.parametrize(
    ("threads", "used", "other"), [(1, "thread_time", "perf_counter"), (2, "perf_counter", "thread_time")]
)
def test_one_thread_is_not_charged_for_what_others_take(
    threads: int, used: str, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Must: take the engine that computes least on a busy machine. Must not: count one of many threads alone."""
    ticks = itertools.count()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr(choice.time, used, lambda: float(next(ticks)))
    monkeypatch.setattr(choice.time, other, lambda: pytest.fail("the wrong clock"))
    assert isinstance(choice.fastest(["bk"], mlp(), work(), torch.device("cpu")), BookKeepingEngine)
    assert next(ticks)


def test_a_wrong_engine_is_never_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: refuse it by name, and pass it over in auto. Must not: say that no engine is right while one is."""
    monkeypatch.setattr(choice, "ENGINES", {**ENGINES, "bk": Doubling})
    with pytest.raises(Refusal, match="differs from one record at a time"):
        choose("bk", mlp(), work(), measured=True)
    assert isinstance(choose("auto", mlp(), work(), measured=False), OpacusEngine)
    monkeypatch.setattr(choice, "ENGINES", dict.fromkeys(AUTO, Doubling))
    monkeypatch.setattr(choice, "_CHOSEN", {})
    with pytest.raises(Refusal, match=r"bk: .* vmap: ") as refused:
        choose("auto", mlp(), work(), measured=True)
    assert refused.value.code is Code.MODEL_INVALID
    assert "reference" in refused.value.do


def test_auto_finds_the_engine_for_a_layer_without_a_rule() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale, self.out = nn.Parameter(torch.ones(6)), nn.Linear(6, 3)
            self.register_buffer("shift", torch.ones(6), persistent=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x * self.scale + self.shift)

    assert choose("auto", Own(), work(), measured=False) == VmapEngine()
    with pytest.raises(Refusal, match=r"Layer model \(Own\)"):
        choose("bk", Own(), work(), measured=False)


@pytest.mark.parametrize("engine", [BookKeepingEngine(), VmapEngine(), OpacusEngine("faster")])
def test_dropout_does_not_hide_that_an_engine_is_right(engine: Any) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    assert check_engine(engine, model, task(3).losses, Probe((6,), 3)) < 1e-5
    assert isinstance(model[1], nn.Dropout)
    assert model[1].p == 0.5


def test_an_edge_of_a_rectifier_is_no_fault_but_a_factor_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: let float64 decide where float32 differs a little. Must not: let a wrong engine of float32 through."""

    class Off(BookKeepingEngine):
        by, doubles = 1.001, 1.0

        def clipped_sum(self, model: nn.Module, *given: Any) -> ClippedSum:
            found = super().clipped_sum(model, *given)
            exact = next(model.parameters()).dtype is torch.float64
            return ClippedSum(found.total * (self.doubles if exact else self.by), *list(vars(found).values())[1:])

    assert check_engine(Off(), mlp(), task(3).losses, Probe((6,), 3)) < 1e-9
    for by, doubles in ((1.05, 1.0), (1.001, 1.001)):
        monkeypatch.setattr(Off, "by", by)
        monkeypatch.setattr(Off, "doubles", doubles)
        with pytest.raises(Refusal, match="differs"):
            check_engine(Off(), mlp(), task(3).losses, Probe((6,), 3))


def test_an_engine_that_loses_a_record_is_refused() -> None:
    class Losing(BookKeepingEngine):
        def clipped_sum(self, *given: Any) -> ClippedSum:
            found = super().clipped_sum(*given)
            return ClippedSum(found.total, found.losses, found.outputs, torch.zeros_like(found.usable))

    with pytest.raises(Refusal, match="differs"):
        check_engine(Losing(), mlp(), task(3).losses, Probe((6,), 3))


def test_words_as_inputs_and_a_model_without_parameters() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3))
    for engine in (BookKeepingEngine(), VmapEngine(), OpacusEngine()):
        assert check_engine(engine, model, task(3).losses, Probe((5,), 3, tokens=9)) < 1e-5
    assert (
        ReferenceEngine()
        .clipped_sum(nn.Flatten(), task(3).losses, torch.ones(2, 3), torch.zeros(2).long(), 1.0)
        .total.size
        == 0
    )


def test_site_toml_knows_the_names() -> None:
    from client.site import SiteSettings

    federation = {"manifest": "m", "governance": "g"}
    table = {"name": "a", "id": 1, "state": "s", "policy": "p", "data": [], "federation": federation}
    assert load(SiteSettings, table).engine == "auto"
    assert load(SiteSettings, {**table, "engine": "vmap"}).engine == "vmap"
    with pytest.raises(Refusal, match="bk"):
        load(SiteSettings, {**table, "engine": "ghost"})

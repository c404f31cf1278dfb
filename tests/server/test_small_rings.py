"""Runs of mode M4 in a ring of few bits: reports are smaller, the promise is kept, and the model is as good."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import client.guard
from common.errors import Refusal
from common.work import Work, work_of
from server.coordinator import run_job
from server.job import prepared
from server.reach import Asked
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from tests.server.test_site_level import changes
from tests.worlds import Desk, close, desk_of, questions_of, scenario, settings_of

Run = tuple[Desk, Any, dict[str, Any]]


def asked(bits: int | None, noise: str = "system", mechanism: str = "discrete-gaussian", **privacy: Any) -> Any:
    """Changes of a scenario: mode M4, in a ring of so many bits; None: one in which nothing wraps."""
    if bits is None:
        return changes("M4", noise, **privacy)
    return {**changes("M4", noise, mechanism=mechanism, **privacy), "job.aggregation.bits": bits}


@pytest.fixture
def played(tmp_path: Path) -> Callable[..., Run]:
    """A run over sessions in this process, with its end and its audit."""

    def play(made: dict[str, Any], base: str = "clinics") -> Run:
        desk = desk_of(scenario("M2", made, base=base), tmp_path / str(len(list(tmp_path.iterdir()))))
        try:
            state = run_job(desk.work, Asked(questions_of(desk)), settings_of(desk))
        finally:
            close(desk)
        return desk, state, audit(read_run(settings_of(desk).result))

    return play


@pytest.mark.parametrize("mechanism", ["discrete-gaussian", "skellam"])
@pytest.mark.parametrize("extra", [{}, {"quantile": 0.5}], ids=["fixed", "adaptive"])
def test_a_run_in_sixteen_bits_claims_its_epsilon_and_names_its_noise(
    played: Callable[..., Run], mechanism: str, extra: dict[str, Any]
) -> None:
    desk, state, found = played({**asked(16, mechanism=mechanism, **extra), "job.rounds": 2})
    assert (found["verdict"], found["unit"], found["mode"]) == ("PASS", "site", "M4")
    assert 0 < found["epsilon"] <= 8 == found["promised"]
    assert f"for {mechanism} noise in 16 bits Rényi divergences" in found["claims"][0]
    assert "It holds against the server, every user of the model and colluding sites" in found["claims"][0]
    assert len(state.rounds) == 2
    assert desk.work.codec("train").ring.bits == 16
    assert bool(state.clip) is bool(extra)


@pytest.mark.parametrize("protocol", ["alm", "bonawitz"])
def test_without_noise_the_model_is_that_of_a_wide_ring_up_to_rounding(
    played: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """Must: open, turn back and scale the sum as the sites turned and scaled it, by either protocol."""
    monkeypatch.setattr(client.guard, "integer_noise", lambda plan, _: np.zeros(plan.lanes, np.int64))
    own = {"job.aggregation.protocol": protocol, "job.aggregation.quorum": 4, "world.unmaskers": 5}
    own |= {"world.lost_max": 0, "job.rounds": 2}
    models = [played({**asked(bits, "replay"), **own})[1].parameters for bits in (None, 20, 16)]
    assert np.linalg.norm(models[0]) > 0.2
    np.testing.assert_allclose(models[1], models[0], atol=1e-3)
    np.testing.assert_allclose(models[2], models[0], atol=1e-2)
    assert not np.array_equal(models[2], models[0])


def test_fewer_bits_are_fewer_bytes_for_the_same_promise_and_hardly_more_noise(played: Callable[..., Run]) -> None:
    works, sent = {}, {}
    for bits in (None, 20, 16):
        desk, state, found = played({**asked(bits), "job.rounds": 1, "job.evaluation.bins": 10}, "digits")
        assert (found["verdict"], found["promised"]) == ("PASS", 8.0)
        assert 0 < found["epsilon"] <= 8.0
        works[bits], sent[bits] = desk.work, sum(state.rounds[0]["bytes"].values())
    packed = {bits: work.codec("train").ring.packed for bits, work in works.items()}
    assert packed == {None: 2640, 20: 1790, 16: 1432}
    for bits in (20, 16):
        assert sent[None] - sent[bits] >= 5 * (packed[None] - packed[bits])  # and the unmasking sites' answers besides
    noise = {bits: _deviation(work) / _deviation(works[None]) for bits, work in works.items()}
    assert 0.99 < noise[20] < 1.01
    assert 1.02 < noise[16] < 1.1


def _deviation(work: Work) -> float:
    return work.training.sum_deviation * work.training.honest**0.5


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"job.aggregation.bits": 20}, "no noise is chosen"),
        ({"job.aggregation.bits": 20, "job.aggregation.bound": 1.0}, "ring and scale follow"),
        ({"job.privacy.mechanism": "skellam"}, "nothing says for which ring"),
    ],
)
def test_a_job_with_half_a_codec_is_refused(changed: dict[str, Any], why: str, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=why):
        desk_of(scenario("M2", {**asked(None), **changed}), tmp_path / "world")


def test_server_and_sites_make_the_same_codec_and_turn_from_the_job_alone(tmp_path: Path) -> None:
    desk = desk_of(scenario("M2", asked(16)), tmp_path / "world")
    close(desk)
    again = work_of(prepared(desk.work.job, desk.federation.manifest), desk.federation.manifest)
    assert again.codec("train") == desk.work.codec("train")
    assert again.turn(3) == desk.work.turn(3) != desk.work.turn(4)
    assert again.codec("evaluate").ring.bits == 32

"""The engine ray before Ray: what is refused, what the environment says, and what crosses to a worker and back."""

from __future__ import annotations

import json
import socket
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from common.errors import Code, Refusal
from common.frames import pack
from simulations.door import app
from simulations.engines import cluster, errands
from simulations.engines.catalogue import EngineName, engine_of
from simulations.engines.cluster import ADDRESS, CPUS, GPUS, ClusterSettings, connected
from simulations.engines.errands import Errand, answer_in, carried_out
from simulations.study.plan import study_of
from simulations.study.sweep import workers_of
from tests.simulations.engines.test_engines import SITES, WEIGHTS, close_to, first_turn, world
from tests.simulations.study.fakes import study_table


def test_the_environment_and_then_the_command_line_say_where() -> None:
    said = {ADDRESS: "10.0.0.1:6379", CPUS: "2", GPUS: "0.5"}
    assert ClusterSettings.of(said) == ClusterSettings(address="10.0.0.1:6379", cpus=2.0, gpus=0.5)
    assert ClusterSettings.of(said, {"cpus": 1, "address": "auto"}) == ClusterSettings(address="auto", gpus=0.5)
    assert ClusterSettings.of({}) == ClusterSettings(address=None, cpus=1.0, gpus=0.0)


@pytest.mark.parametrize(
    ("said", "changes"),
    [
        ({CPUS: "many"}, {}),
        ({}, {"cpus": 0}),
        ({}, {"gpus": -1}),
        ({}, {"cpu": 1}),
        ({}, {"address": "ray://10.0.0.1:10001"}),
        ({}, {"cpus": "1"}),
    ],
)
def test_what_makes_no_sense_is_refused(said: dict[str, str], changes: dict[str, Any]) -> None:
    with pytest.raises(Refusal) as caught:
        ClusterSettings.of(said, changes)
    assert caught.value.code is Code.CONFIG_INVALID


def test_without_ray_it_is_said_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: refuse before anything is set up, naming the extra."""
    monkeypatch.setattr(cluster, "find_spec", lambda name: None)
    with pytest.raises(Refusal, match=r"hushfed\[ray\]") as caught:
        engine_of(EngineName.RAY, *world())
    assert caught.value.code is Code.PART_MISSING
    result = CliRunner().invoke(app, ["run", "clinics", "--engine", "ray", "--json"])
    assert (result.exit_code, json.loads(result.stdout.splitlines()[-1])["refusal"]["code"]) == (3, "PART_MISSING")


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    with pytest.raises(Refusal, match="nobody listens") as caught, connected(ClusterSettings(address=address)):
        pytest.fail("there is no cluster")
    assert caught.value.code is Code.CONFIG_INVALID


@pytest.mark.parametrize("words", [["--ray", "cpus=1"], ["--engine", "loop", "--ray", "cpus=1"], ["--engine", "rays"]])
def test_settings_of_a_cluster_that_nobody_uses_are_refused(words: list[str]) -> None:
    result = CliRunner().invoke(app, ["run", "clinics", *words, "--json"])
    assert (result.exit_code, json.loads(result.stdout.splitlines()[-1])["refusal"]["code"]) == (3, "CONFIG_INVALID")


def test_a_study_takes_a_cluster_for_one_cell_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Must not: let two runs wait for each other's processors, or start a cluster on one processor for each cell."""
    study = study_of(study_table(engine="ray"))
    monkeypatch.setenv(ADDRESS, "10.0.0.1:6379")
    assert workers_of(study) == workers_of(study, 1) == 1
    with pytest.raises(Refusal, match="takes the whole cluster"):
        workers_of(study, 2)
    monkeypatch.delenv(ADDRESS)
    with pytest.raises(Refusal, match=ADDRESS):
        workers_of(study)


def errand(**changes: Any) -> bytes:
    work, ground = world()
    fields: dict[str, Any] = {
        "setting": errands.setting_of(work, ground),
        "records": errands.digest_of(ground),
        "method": "share",
        "kernel": "dual",
        "cuda": False,
        "task": "train",
        "round": 1,
        "attempt": 0,
        "parameters": first_turn(work).parameters.tobytes(),
        "sites": SITES,
        "weights": WEIGHTS.tobytes(),
        "clip": float("inf"),
    }
    return pack(Errand(**{**fields, **changes}))


def test_a_worker_rebuilds_the_world_from_the_scenario_alone() -> None:
    """Must: need no record. Must not: send one."""
    work, ground = world()
    frame = errand()
    share = errands.share_in(answer_in(carried_out(frame)))
    wanted = engine_of(EngineName.LOOP, work, ground).share(first_turn(work), SITES, WEIGHTS, np.inf)
    assert close_to(share.sum, wanted.sum)
    assert np.allclose(share.norms, wanted.norms, rtol=1e-5)
    assert ground.pool.inputs[0].numpy().tobytes() not in frame


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"records": bytes(32)}, Code.DATA_INVALID),
        ({"parameters": bytes(4)}, Code.UPDATE_INVALID),
    ],
)
def test_a_refusal_comes_back_as_what_it_is(changes: dict[str, Any], code: Code) -> None:
    with pytest.raises(Refusal) as caught:
        answer_in(carried_out(errand(**changes)))
    assert caught.value.code is code


def test_bytes_that_are_no_errand_are_refused() -> None:
    with pytest.raises(Refusal) as caught:
        answer_in(carried_out(b"HF\x01nothing"))
    assert caught.value.code is Code.MESSAGE_INVALID


def test_a_worker_without_a_card_refuses_to_teach_on_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Must not: quietly take the processor instead."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refusal, match="cuda"):
        answer_in(carried_out(errand(cuda=True, kernel="loop")))

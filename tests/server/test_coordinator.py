"""A run: from its first round, or from its checkpoint, to its record; killed anywhere, it goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from safetensors.numpy import load_file

import server.coordinator
from common.config import plain
from common.errors import Code, Refusal
from common.messages import AnyOrder, LedgerOrder, OfferOrder, UnmaskOrder, WorkOrder
from common.statement import opened, statement_of
from server.checkpoints import State
from server.coordinator import RunSettings, manifest_of, node_keys, run, run_job
from server.reach import Asked
from server.rounds import Table, play
from tests.worlds import Desk, Lines, close, desk_of, questions_of, scenario, settings_of, under

RUN_KEYS = {
    "schema",
    "status",
    "run",
    "job",
    "manifest",
    "versions",
    "seeds",
    "heads",
    "refusals",
    "spent_attempts",
    "evaluation",
    "noise",
    "accuracy",
    "baselines",
    "seconds",
    "ended",
}


class Killed(BaseException):
    """The coordinator's process ends here."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = desk_of(scenario("M2"), tmp_path / "world")
    yield made
    close(made)


def played(desk: Desk, line: Callable[..., bytes | None] | None = None, *, resume: bool = False) -> Any:
    lines = Lines(desk, line) if line else Lines(desk)
    return run_job(desk.work, Asked(questions_of(desk, lines)), settings_of(desk, resume=resume))


def killing(kind: type[AnyOrder], round_number: int, task: str = "train") -> Callable[..., bytes | None]:
    """Lines on which the coordinator dies when it sends an order of a kind, or in a round."""
    playing = [0]

    def line(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        if isinstance(order, WorkOrder):
            playing[0] = order.round
        if isinstance(order, kind) and playing[0] == round_number and getattr(order, "task", task) == task:
            raise Killed
        return answer()

    return line


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run that nothing disturbed."""
    desk = desk_of(scenario("M2"), tmp_path_factory.mktemp("whole") / "world")
    state = played(desk)
    close(desk)
    return {"state": state, "desk": desk, "settings": settings_of(desk)}


def test_a_run_leaves_its_record_and_its_history(whole: dict[str, Any]) -> None:
    settings: RunSettings = whole["settings"]
    table = json.loads((settings.result / "run.json").read_text(), parse_constant=pytest.fail)
    assert set(table) >= RUN_KEYS
    assert table["status"] == "completed"
    assert set(table["heads"]) == {"clinic-a", "clinic-b", "clinic-c"}
    assert table["evaluation"]["round"] == 3
    assert table["job"] == plain(whole["desk"].work.job)
    rows = [json.loads(line) for line in (settings.result / "rounds.jsonl").read_text().splitlines()]
    assert [row["round"] for row in rows] == [1, 2, 3]
    assert rows == [json.loads(line) for line in settings.live.read_text().splitlines()]
    history = sorted(settings.history.glob("*.f32"))
    assert len(history) == 4
    parameters = whole["state"].parameters
    assert history[-1].read_bytes() == parameters.tobytes()
    arrays = load_file(settings.result / "model.safetensors")
    assert np.array_equal(
        np.concatenate([arrays[name].reshape(-1) for name in whole["desk"].work.layout.names]), parameters
    )
    statement = opened(table, whole["desk"].work.manifest.coordinator)
    assert statement == statement_of(table, rows, (settings.result / "model.safetensors").read_bytes())
    assert statement.job == whole["desk"].work.job.digest().hex()
    assert statement.manifest == whole["desk"].work.manifest.digest.hex()
    for site in table["heads"]:
        assert len((settings.result / "ledgers" / f"{site}.jsonl").read_bytes().splitlines()) == 1 + 2 * 4


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_run_that_is_killed_between_rounds_ends_with_the_same_model(
    desk: Desk, whole: dict[str, Any], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(table: Table, state: State) -> State:
        if len(state.rounds) + 1 == number:
            raise Killed
        return play(table, state)

    with monkeypatch.context() as patched:
        patched.setattr("server.coordinator.play", dying)
        with pytest.raises(Killed):
            played(desk)
    assert not settings_of(desk).result.exists()
    state = played(desk, resume=True)
    assert state.parameters.tobytes() == whole["state"].parameters.tobytes()
    assert [row["loss"] for row in state.rounds] == [row["loss"] for row in whole["state"].rounds]
    assert state.evaluation["counts"] == whole["state"].evaluation["counts"]
    assert state.spent == {}
    assert (settings_of(desk).result / "run.json").exists()


def test_an_attempt_that_a_crash_cut_counts_as_spent(desk: Desk) -> None:
    """Must: never grant more attempts than the budget affords, however often the coordinator is killed and resumed."""
    spare = desk.work.spare("train")
    for cut in range(spare + 1):
        with pytest.raises(Killed):
            played(desk, killing(UnmaskOrder, 2), resume=cut > 0)
    with pytest.raises(Refusal, match="more rounds need a new job") as refused:
        played(desk, resume=True)
    assert refused.value.code is Code.RUN_FAILED
    assert desk.charges(1).count("RESERVE") == 1 + spare + 1
    assert not settings_of(desk).attempt.exists() or settings_of(desk).attempt.read_text() == "train"


@pytest.mark.parametrize("task", ["train", "evaluate"])
def test_a_run_that_is_killed_after_the_sites_worked_goes_on(desk: Desk, task: str) -> None:
    """The charge of the attempt that was cut stands; the rounds go on, and the ledgers show both."""
    number = 2 if task == "train" else 3
    with pytest.raises(Killed):
        played(desk, killing(UnmaskOrder, number, task))
    charged = desk.charges(1).count("RESERVE")
    state = played(desk, resume=True)
    assert len(state.rounds) == 3
    assert state.evaluated == 3
    assert charged == (2 if task == "train" else 4)
    assert desk.charges(1).count("RESERVE") == 5


def test_a_run_that_is_killed_while_it_fetches_ledgers_is_finished_by_resuming(
    desk: Desk, whole: dict[str, Any]
) -> None:
    with pytest.raises(Killed):
        played(desk, killing(LedgerOrder, 3, "ledger"))
    asked: list[AnyOrder] = []

    def noting(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes:
        asked.append(order)
        return answer()

    state = played(desk, noting, resume=True)
    assert state.parameters.tobytes() == whole["state"].parameters.tobytes()
    assert {type(order) for order in asked} == {LedgerOrder}


def test_counts_that_fail_once_leave_history_and_rounds_as_they_are(desk: Desk, whole: dict[str, Any]) -> None:
    """A failed attempt is saved while its round is whole: nothing of it may be played twice."""

    def line(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
        data = answer()
        lost = isinstance(order, WorkOrder) and order.task == "evaluate" and order.attempt == 0 and site != 1
        return None if lost else data

    state = played(desk, line)
    assert state.spent == {"evaluate": 1}
    assert state.parameters.tobytes() == whole["state"].parameters.tobytes()
    names = [path.name for path in sorted(settings_of(desk).history.glob("*.f32"))]
    for name in names:
        assert (settings_of(desk).history / name).read_bytes() == (whole["settings"].history / name).read_bytes()


def test_a_folder_that_holds_a_run_is_not_used_for_another(desk: Desk) -> None:
    with pytest.raises(Killed):
        played(desk, killing(WorkOrder, 2))
    before = settings_of(desk).checkpoint.read_bytes()
    with pytest.raises(Refusal, match="Resume that run") as refused:
        played(desk)
    assert refused.value.code is Code.FILE_EXISTS
    assert settings_of(desk).checkpoint.read_bytes() == before


def test_a_run_is_not_resumed_with_another_job(desk: Desk) -> None:
    with pytest.raises(Killed):
        played(desk, killing(WorkOrder, 2))
    desk.work = replace(desk.work, job=replace(desk.work.job, rounds=30))
    with pytest.raises(Refusal, match="run and job") as refused:
        played(desk, resume=True)
    assert refused.value.code is Code.RUN_UNKNOWN


def test_a_job_that_too_many_sites_refuse_is_not_started(desk: Desk) -> None:
    for site in (2, 3):
        session = desk.sessions[site]
        policy = session._policy.now
        session._policy = under(replace(policy, privacy=replace(policy.privacy, max_epsilon=1.0)))
    with pytest.raises(Refusal, match="POLICY_PRIVACY") as refused:
        played(desk)
    assert refused.value.code is Code.RUN_FAILED
    assert "hushfed site explain" in refused.value.do
    assert desk.charges(1) == ["OPEN"]


def test_the_job_is_offered_before_anything_is_asked(desk: Desk) -> None:
    kinds: list[type[AnyOrder]] = []

    def noting(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes:
        kinds.append(type(order))
        return answer()

    played(desk, noting)
    assert kinds[:3] == [OfferOrder] * 3
    assert OfferOrder not in kinds[3:]
    assert kinds[-3:] == [LedgerOrder] * 3


def test_why_a_run_ended_is_left_for_whoever_watches(desk: Desk, tmp_path: Path) -> None:
    settings = settings_of(desk)

    def dense(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: dense(inner) for name, inner in value.items() if inner is not None}
        return [dense(inner) for inner in value] if isinstance(value, list) else value

    settings.job.write_text(tomli_w.dumps(dense(plain(desk.work.job))))
    lines = Lines(desk, away=frozenset({1, 2, 3}))
    with pytest.raises(Refusal):
        run(lines, settings)
    found = json.loads(settings.refusal.read_text())
    assert set(found) == {"code", "what", "why", "do"}
    assert found["code"] == "E_TOO_FEW"
    lines.away = frozenset()
    run(lines, settings)
    assert not settings.refusal.exists()
    assert (settings.result / "run.json").exists()


def test_a_model_too_large_for_its_history_is_not_kept_round_by_round(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.coordinator, "HISTORY_BYTES", 10)
    played(desk)
    assert not settings_of(desk).history.exists()


def test_the_manifest_must_be_signed_by_the_folder_s_governance(desk: Desk) -> None:
    folder = desk.federation.coordinator
    assert manifest_of(folder).digest == desk.work.manifest.digest
    assert set(node_keys(settings_of(desk))) == {1, 2, 3}
    (folder / "governance.pub").write_text("00" * 32)
    with pytest.raises(Refusal) as refused:
        manifest_of(folder)
    assert refused.value.code in (Code.E_SIG, Code.E_MANIFEST)
    (folder / "governance.pub").write_text("no hex")
    with pytest.raises(Refusal) as refused:
        manifest_of(folder)
    assert refused.value.code is Code.FILE_MISSING

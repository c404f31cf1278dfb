"""The socket of an agent: bytes in, bytes out, one at a time, and no text of a failure."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest

from client.agent import Turnstile, isolation, network_reachable, serve
from client.agent_channel import AgentChannel, Failure
from common.errors import Code, Refusal

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests" / "stories" / "transport" / "echo_agent.py"


def handle(frame: bytes) -> bytes:
    if frame == b"fail":
        raise KeyError("patient 17")
    if frame == b"refuse":
        raise Refusal(Code.POLICY_TASK, "patient 17", "patient 17", "patient 17")
    return frame


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="hf") as name:  # a short path: a socket's may have 107 bytes
        yield Path(name)


class Running(AgentChannel):
    """An agent in a process of its own, and the channel to it."""

    def __init__(self, path: Path, *options: str) -> None:
        command = [sys.executable, str(PROGRAM), "--socket", str(path), *options]
        self.process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
        end = time.monotonic() + 10
        while not path.exists() or not _listens(path):
            assert time.monotonic() < end
            time.sleep(0.02)
        super().__init__(path)


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[..., Running]]:
    """Start an agent at `folder`/a.sock."""
    agents = []

    def begin(*options: str) -> Running:
        agents.append(Running(folder / "a.sock", *options))
        return agents[-1]

    yield begin
    for agent in agents:
        agent.close()
        agent.process.kill()
        agent.process.wait()


def test_bytes_come_back_and_the_folder_is_private(start: Callable[..., Running], folder: Path):
    agent = start()
    assert agent.ask(b"echo hello", 10).wait(10) == b"hello"
    assert agent.ask(b"echo " + bytes(20_000_000), 20).wait(20) == bytes(20_000_000)
    assert (folder / "a.sock").stat().st_mode & 0o777 == 0o600


def test_a_failure_is_its_code_and_nothing_else(start: Callable[..., Running]):
    agent = start()
    assert agent.ask(b"fail", 10).wait(10) == Failure(Code.INTERNAL)
    assert agent.ask(b"refuse", 10).wait(10) == Failure(Code.POLICY_TASK)
    assert agent.ask(b"echo on", 10).wait(10) == b"on"


def test_a_refusal_can_be_a_reply_of_its_own(start: Callable[..., Running]):
    agent = start("--refusing")
    assert agent.ask(b"fail", 10).wait(10) == b"refused INTERNAL"
    assert agent.ask(b"refuse", 10).wait(10) == b"refused POLICY_TASK"


def test_one_order_at_a_time(start: Callable[..., Running]):
    """Must: let a second order wait a moment. Must not: let it wait for long, or run beside the first."""
    agent = start()
    first, second = agent.ask(b"sleep 0.5", 10), agent.ask(b"echo two", 10)
    assert second.wait(10) == b"two"
    assert first.wait(10) == b"0.5"
    long = agent.ask(b"sleep 3", 10)
    time.sleep(0.1)
    assert agent.ask(b"echo two", 10).wait(10) == Failure(Code.AGENT_BUSY)
    assert long.wait(10) == b"3"


def test_an_answer_that_is_not_there_yet_is_none(start: Callable[..., Running]):
    answer = start().ask(b"sleep 0.4", 10)
    assert answer.wait(0.05) is None
    assert answer.wait(5) == b"0.4"


def test_a_killed_agent_fails_at_once_and_its_successor_is_found(start: Callable[..., Running]):
    agent = start()
    answer = agent.ask(b"sleep 20", 30)
    time.sleep(0.2)
    began = time.monotonic()
    agent.process.kill()
    assert answer.wait(10) == Failure(Code.AGENT_UNAVAILABLE)
    assert agent.ask(b"echo x", 10).wait(10) == Failure(Code.AGENT_UNAVAILABLE)
    assert time.monotonic() - began < 2
    agent.process.wait()
    start()
    time.sleep(1.0)
    assert agent.ask(b"echo back", 10).wait(10) == b"back"


def test_an_agent_told_to_stop_ends_even_in_the_middle_of_an_order(start: Callable[..., Running], folder: Path):
    agent = start()
    agent.ask(b"sleep 30", 40)
    time.sleep(0.2)
    os.kill(agent.process.pid, signal.SIGTERM)
    agent.process.wait(5)
    assert agent.process.returncode == 0
    assert not (folder / "a.sock").exists()


def test_the_health_service_says_serving(start: Callable[..., Running], folder: Path):
    start()
    with grpc.insecure_channel(f"unix:{folder / 'a.sock'}") as channel:
        assert channel.unary_unary("/grpc.health.v1.Health/Check", None, None)(b"", timeout=5) == b"\x08\x01"
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/hushfed.Agent/Other", None, None)(b"", timeout=5)


def test_a_second_agent_is_refused_the_socket(start: Callable[..., Running], folder: Path):
    agent = start()
    with pytest.raises(Refusal) as refused:
        serve(handle, folder / "a.sock")
    assert refused.value.code is Code.PROCESS_FAILED
    assert agent.ask(b"echo on", 10).wait(10) == b"on"


@pytest.mark.parametrize("name", ["x" * 120, "open/a.sock"])
def test_a_socket_where_it_cannot_be_is_refused(folder: Path, name: str):
    (folder / "open").mkdir(mode=0o755)
    (folder / "open").chmod(0o755)
    with pytest.raises(Refusal) as refused:
        serve(handle, folder / name)
    assert refused.value.code is Code.CONFIG_INVALID


def test_whether_there_is_a_network_is_read_from_the_interfaces(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo")])
    assert not network_reachable()
    assert isolation() == "netns"
    monkeypatch.setattr("client.agent._is_up", lambda name: name == "eth0")
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "tunl0")])
    assert isolation() == "netns"
    monkeypatch.setattr(socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0")])
    assert isolation() == "none"


def test_the_turn_is_given_back_after_every_kind_of_end():
    class Context:
        def abort(self, status: grpc.StatusCode, text: str) -> None:
            raise RuntimeError(text)

    turnstile = Turnstile(handle, None)
    for frame in (b"fail", b"refuse", b"echo x"):
        thread = threading.Thread(target=_quietly, args=(turnstile, frame, Context()))
        thread.start()
        thread.join()
        assert not turnstile.busy


def _quietly(turnstile: Turnstile, frame: bytes, context: object) -> None:
    try:
        turnstile.pass_through(frame, context)  # type: ignore[arg-type]
    except RuntimeError:
        return


def test_an_agent_loads_no_learning_library_before_it_is_known_to_be_the_only_one() -> None:
    """Must not: make a refusal, or a start without records, wait seconds for them."""
    code = "import sys, client.agent; print([m for m in ('torch', 'opacus', 'pandas') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"

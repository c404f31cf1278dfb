"""hushfed demo as a command: what it prints and leaves, that nothing survives it, and that no secret gets out."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from tests.stories.stage import alive, command, rounds_of, until

pytestmark = [pytest.mark.story, pytest.mark.timeout(280)]

HUSHFED = Path(sys.executable).parent / "hushfed"
SITE_KEYS = {"identity", "split.key", "node.key"}
KEYS = {*SITE_KEYS, "server.key", "ca.key", "governance.key", "identity.key", "executor.secret"}
PROMISED = {"status", "run", "sites", "rounds", "accuracy", "pooled_accuracy", "alone_accuracy", "privacy", "seconds",
            "seconds_per_round", "report"}  # fmt: skip
RUN_FILES = {"run.json", "rounds.jsonl", "model.safetensors", "report.html", "card.md"}


def started(out: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(HUSHFED), "demo", "--out", str(out), "--json", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=out.parent,
    )


def family_in_a_round(demo: subprocess.Popen[str], out: Path) -> list[psutil.Process]:
    """All processes of a demo, once it has finished its first round."""
    rounds = out / "federation" / "coordinator" / "state" / "rounds.jsonl"
    until(lambda: demo.poll() is not None or (rounds.exists() and bool(rounds.read_text())), 120)
    assert demo.poll() is None
    return psutil.Process(demo.pid).children(recursive=True)


def said_of(family: list[psutil.Process]) -> str:
    """Command lines and environments, which other users and crash reports may show."""
    lines = []
    for process in family:
        try:
            lines += [" ".join(process.cmdline()), *(f"{name}={value}" for name, value in process.environ().items())]
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return "\n".join(lines)


@dataclass(frozen=True)
class Finished:
    """A demo that ran to its end: its folder, what it printed last, its processes and what the system said of them."""

    out: Path
    printed: dict[str, Any]
    family: list[psutil.Process]
    said: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("demo") / "out"
    demo = started(out, "--rounds", "3")
    family = family_in_a_round(demo, out)
    said = said_of(family)
    printed, complaints = demo.communicate(timeout=200)
    assert demo.returncode == 0, complaints
    assert len(printed.splitlines()) == 1
    return Finished(out, json.loads(printed), family, said)


def test_the_demo_prints_what_the_contract_promises(finished: Finished):
    out, printed = finished.out, finished.printed
    assert printed.keys() >= PROMISED
    assert (printed["status"], printed["sites"], printed["rounds"]) == ("completed", 4, 3)
    assert printed["privacy"].keys() >= {"epsilon", "delta", "unit", "mode"}
    assert 0 < printed["privacy"]["epsilon"] <= 3.0
    assert 0.4 < printed["accuracy"] <= 1
    assert printed["run"] == str(out / "run")
    assert Path(printed["report"]).is_file()


def test_the_demo_leaves_a_run_directory_that_passes_its_audit(finished: Finished):
    run, printed = finished.out / "run", finished.printed
    assert {path.name for path in run.iterdir()} >= RUN_FILES
    assert {path.stem for path in (run / "ledgers").iterdir()} == {"clinic-a", "clinic-b", "clinic-c", "clinic-d"}
    assert [row["round"] for row in rounds_of(run)] == [1, 2, 3]
    code, found = command("audit", "privacy", str(run))
    assert (code, found["problems"]) == (0, [])
    assert found["epsilon"] == printed["privacy"]["epsilon"]


def test_nothing_of_a_finished_demo_is_left_running(finished: Finished):
    assert len(finished.family) >= 11  # server, executor, coordinator, four agents, four links
    assert not [process for process in finished.family if alive(process)]


def test_an_interrupted_demo_ends_with_130_and_leaves_nothing_running(tmp_path: Path):
    """Must: say that it was interrupted. Must not: leave a run directory that looks finished."""
    demo = started(tmp_path / "out", "--sites", "2")
    family = family_in_a_round(demo, tmp_path / "out")
    assert all(word in said_of(family) for word in ("server.superlink", "client.agent", "client.link", "serverapp"))
    demo.send_signal(signal.SIGINT)
    said, complaints = demo.communicate(timeout=60)
    assert demo.returncode == 130
    assert json.loads(said.splitlines()[-1]) == {"status": "interrupted"}
    assert "Traceback" not in complaints
    until(lambda: not any(map(alive, family)), 10)
    assert not (tmp_path / "out" / "run").exists()


def test_nothing_is_left_when_the_demo_itself_is_killed(tmp_path: Path):
    demo = started(tmp_path / "out", "--sites", "2")
    family = family_in_a_round(demo, tmp_path / "out")
    demo.kill()
    demo.communicate()
    until(lambda: not any(map(alive, family)), 15)
    time.sleep(1.0)  # nothing is started again either
    marks = str(tmp_path / "out")
    commands = [" ".join(one.info["cmdline"] or []) for one in psutil.process_iter(["cmdline"])]
    assert [words for words in commands if marks in words] == []


def test_keys_are_for_their_owner_alone(finished: Finished):
    """Must: give keys, ledgers and records 0600 in folders of 0700."""
    federation = finished.out / "federation"
    assert {path.name for path in federation.rglob("*")} >= KEYS
    for path in federation.rglob("*"):
        private = path.name in KEYS or path.suffix in (".sqlite", ".db", ".csv")
        if private and path.is_file():
            assert path.stat().st_mode & 0o777 == 0o600, path
            assert path.parent.stat().st_mode & 0o777 == 0o700, path.parent
            assert path.stat().st_uid == os.getuid()


def forms_of(secret: bytes) -> list[bytes]:
    """The ways in which a secret might be written down."""
    return [secret, secret.hex().encode(), base64.b64encode(secret).rstrip(b"="), repr(secret)[2:-1].encode()]


def secrets_of(federation: Path) -> dict[Path, list[bytes]]:
    """What each key file holds, as it stands there and in every other form."""
    found = {}
    for path in (path for path in federation.rglob("*") if path.name in KEYS and path.is_file()):
        whole = path.read_bytes()
        found[path] = [whole, *forms_of(whole)]
        if whole.startswith(b"-----"):
            load = load_ssh_private_key if b"OPENSSH" in whole else load_pem_private_key
            key = load(whole, None)
            assert isinstance(key, EllipticCurvePrivateKey)
            found[path] += forms_of(key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big"))
    return found


def test_no_key_stands_in_a_log_a_status_file_the_run_the_report_or_a_command_line(finished: Finished):
    """Must: be found by this search where it does stand. Must not: be found anywhere else."""
    out = finished.out
    secrets = secrets_of(out / "federation")
    assert len(secrets) == 5 + 4 * len(SITE_KEYS)
    for path in (path for path in out.rglob("*") if path.is_file()):
        content = path.read_bytes()
        held = {key for key, forms in secrets.items() if any(form in content for form in forms)}
        assert held == ({path} if path in secrets else set()), path
    said = finished.said.encode()
    assert not [key for key, forms in secrets.items() if any(form in said for form in forms)]
    searched = {path.name for path in out.rglob("*")}
    assert searched >= {"report.html", "agent.json", "link.json", "superlink.log", "agent-clinic-a.log", "superlink.db"}

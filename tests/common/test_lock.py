"""One process at a time: the second is told who is there, and a holder that is killed holds nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import Code, Refusal
from common.lock import Purpose, hold, is_held

PURPOSE = Purpose(by="hushfed box", what="Box not opened", harm="two lids")
ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from common.lock import Purpose, hold
held = hold(Path(sys.argv[1]), Purpose(by="hushfed box", what="", harm=""))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path):
    """Another process that holds the lock."""
    words = [sys.executable, "-c", HOLDER, str(tmp_path / "lock")]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_holder_is_refused_with_the_first_one_named(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    """Must: say who, since when, what the harm is and what to do. Must not: change what the first one wrote."""
    note = (tmp_path / "lock").read_text()
    with pytest.raises(Refusal) as refused:
        hold(tmp_path / "lock", PURPOSE)
    assert refused.value.code is Code.ALREADY_RUNNING
    assert f"process {holder.pid}" in refused.value.why
    assert "`hushfed box`" in refused.value.why
    assert refused.value.why.endswith("two lids")
    assert f"kill {holder.pid}" in refused.value.do
    assert (tmp_path / "lock").read_text() == note
    assert is_held(tmp_path / "lock")


def test_a_killed_holder_holds_nothing(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    with hold(tmp_path / "lock", PURPOSE):
        assert is_held(tmp_path / "lock")
    holder.wait()
    assert not is_held(tmp_path / "lock")


def test_processes_that_a_holder_started_do_not_hold_it(tmp_path: Path) -> None:
    """Must: be free when the holder ends, though what it started still runs."""
    with hold(tmp_path / "lock", PURPOSE):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not is_held(tmp_path / "lock")
    finally:
        child.communicate(b"\n")


def test_what_nobody_ever_held_is_free_and_stays_absent(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
    assert not (tmp_path / "lock").exists()


def test_a_note_that_is_none_still_refuses(tmp_path: Path) -> None:
    with hold(tmp_path / "lock", PURPOSE):
        (tmp_path / "lock").write_text("[]")
        with pytest.raises(Refusal, match="another process"):
            hold(tmp_path / "lock", PURPOSE)

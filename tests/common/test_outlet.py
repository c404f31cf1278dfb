"""Standard output that is full, closed, or of few letters: a command says so by its exit code, never by a traceback."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

import pytest

HUSHFED = [sys.executable, "-c", "from common import console; console.main()"]


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = f'hushfed() {{ {shlex.join(HUSHFED)} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", words], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("words", ["strategies list", "strategies list --json", "--help", "fed --help", "--version"])
def test_a_standard_output_that_takes_nothing_ends_quietly(words):
    """Must: end with 3 on a full disk and 141 on a closed pipe. Must not: pass for a verdict, or print a traceback."""
    full = shell(f"hushfed {words} > /dev/full")
    assert full.returncode == 3
    assert "FILE_UNWRITABLE" in full.stderr
    closed = shell(f"hushfed {words} | true; exit ${{PIPESTATUS[0]}}")
    assert (closed.returncode, closed.stderr) == (141, "")
    assert shell(f"hushfed {words} >&-").stderr == ""


def test_a_terminal_of_few_letters_gets_escapes_and_json_stays_json():
    print_it = [sys.executable, "-c", "from common import console as c; c.prepare(); c.emit({'n': 'δ'}, json=%s)"]
    for json_too, shown in ((False, r"n                  \u03b4"), (True, r'{"n": "\u03b4"}')):
        line = shlex.join([*print_it[:2], print_it[2] % json_too])
        assert shell(line, PYTHONIOENCODING="ascii").stdout.rstrip() == shown

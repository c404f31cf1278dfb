"""A skip that nobody allowed fails the whole run: a test that does not run proves nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent / "conftest.py"


def outcome(folder: Path, source: str) -> tuple[int, str]:
    """Exit code and output of pytest on one test file under our conftest."""
    shutil.copy(CONFTEST, folder / "conftest.py")
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_one.py").write_text("import pytest\n" + source)
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    "source",
    [
        "def test_a(): pytest.skip('not today')",
        "@pytest.mark.skipif(True, reason='slow machine')\ndef test_a(): pass\ndef test_b(): pass",
        "pytest.importorskip('no_such_library')\ndef test_a(): pass",
        "pytest.skip('all of it', allow_module_level=True)",
    ],
)
def test_an_unexpected_skip_fails_the_run_and_is_named(tmp_path, source):
    code, out = outcome(tmp_path, source)
    assert code == 1
    assert "skips that nobody allowed" in out
    assert "test_one.py" in out


@pytest.mark.parametrize(
    "source",
    [
        "def test_a(): pass",
        "def test_a(): pass\ndef test_b(): pytest.skip('no public data at HUSHFED_DATA')",
        "def test_a(): pass\ndef test_b(): pytest.skip('no CUDA device here')",
    ],
)
def test_an_allowed_skip_does_not(tmp_path, source):
    assert outcome(tmp_path, source)[0] == 0

"""What all tests share: one thread, repeatable examples, the public data, and no silent skips."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported: results and timings do not depend on the machine

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
NO_DATA = "no public data at HUSHFED_DATA"
ALLOWED_SKIPS = {
    NO_DATA: "the public data sets are not part of the repository",
    "no CUDA device": "most machines have none",
}
UNEXPECTED: list[str] = []

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job: what tests start must hear Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["HUSHFED_DATA"] = str(Path(os.environ.get("HUSHFED_DATA", ROOT.parent / "shared" / "data")).resolve())
settings.register_profile("house", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("house")


@pytest.fixture(scope="session")
def public_data() -> Path:
    """Folder of the public data sets; its absence is the one skip that is allowed on every machine."""
    folder = Path(os.environ["HUSHFED_DATA"])
    if not folder.is_dir():
        pytest.skip(NO_DATA)
    return folder


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    note(report)


def note(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Remember a skip whose reason is not on the list."""
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not any(reason.startswith(allowed) for allowed in ALLOWED_SKIPS):
            UNEXPECTED.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if UNEXPECTED and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if UNEXPECTED:
        terminalreporter.section("skips that nobody allowed (tests/conftest.py)", red=True)
        terminalreporter.write_line("\n".join(UNEXPECTED))

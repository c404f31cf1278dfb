"""What the documents promise: every command of the README and the runbook is run as it is written.

A fenced block marked `console` or `bash` holds commands. In a `console` block they follow `$ `, the rest is output.
All commands of one document run in order in one new folder; `make` targets must exist; an audit may end with any
verdict, an explanation with the refusal it announces, everything else must end well. A line that ends in `&` stays in
the foreground of a terminal of its own: the test waits for its first output and stops it, as Ctrl-C would, after the
document's last command. A block after `<!-- not run: reason -->` needs a world of its own; its `hushfed` commands
must exist.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    path
    for name in ("README.md", "deploy/runbook.md", ".github/CONTRIBUTING.md", ".github/SECURITY.md")
    if (path := ROOT / name).is_file()
]
BLOCK = re.compile(r"(<!-- not run:[^\n]*-->\s*\n)?```(console|bash)\n(.*?)\n```", re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#]+)[^)]*\)")
VERDICTS = {0, 1, 2}  # PASS, FAIL, INCONCLUSIVE: a refusal (3) is no verdict
PREDICTIONS = "label,score,sex\n" + "1,0.9,female\n0,0.2,male\n1,0.7,male\n0,0.4,female\n" * 25


@dataclass(frozen=True)
class Command:
    """One line a reader would type."""

    text: str
    run: bool
    document: str

    def __str__(self) -> str:
        return f"{self.document}: {self.text}"


def commands(text: str, document: str = "README.md") -> list[Command]:
    """All commands of a document, in its order; a backslash joins lines."""
    found = []
    for kept, kind, block in BLOCK.findall(text):
        lines = block.replace("\\\n", " ").splitlines()
        if kind == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        stripped = [line.split("  #")[0].strip() for line in lines if not line.startswith("#")]
        found += [Command(" ".join(line.split()), not kept, document) for line in stripped if line]
    return found


def checkable(command: Command) -> list[str]:
    """What is really run for a command: itself, or the question whether it exists."""
    words = shlex.split(command.text)
    if words[0] == "make":
        return ["make", "-n", "-C", str(ROOT), *words[1:]]
    if command.run:
        return words
    plain = [word for word in words[1:3] if re.fullmatch("[a-z]+", word)]
    return [words[0], *plain, "--help"] if words[0] == "hushfed" else ["true"]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(
        words, cwd=folder, env={**clean, "PATH": path}, capture_output=True, text=True, check=False, timeout=600
    )


@pytest.fixture(scope="module")
def terminals():
    """Commands that stay in the foreground; each must end by itself when it is interrupted."""
    found: dict[str, list[subprocess.Popen[str]]] = {}
    yield found
    for process in [each for opened in found.values() for each in reversed(opened)]:
        stop(process)


def stop(process: subprocess.Popen[str]) -> None:
    """End it as Ctrl-C would; a site whose key was taken back may have ended by itself, with that refusal."""
    revoked = process.poll() == 3 and "clinic-d" in str(process.args)
    process.send_signal(signal.SIGINT)
    try:
        assert revoked or process.wait(40) == 0
    finally:
        process.kill()


def stay(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start a command that stays, and wait for its first line."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(words, cwd=folder, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if not process.stdout.readline():
        raise AssertionError(f"{shlex.join(words)} ended with {process.wait(10)} and said nothing")
    return process


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """One folder a document, holding what its commands take for granted."""
    found = {}
    for path in DOCUMENTS:
        folder = found[path.name] = tmp_path_factory.mktemp(path.stem)
        (folder / "predictions.csv").write_text(PREDICTIONS)
        (folder / "simulations").symlink_to(ROOT / "simulations")
    return found


@pytest.mark.story
@pytest.mark.timeout(660)
@pytest.mark.parametrize(
    "command", [each for path in DOCUMENTS for each in commands(path.read_text(encoding="utf-8"), path.name)], ids=str
)
def test_a_documented_command_does_what_it_says(command, folders, terminals):
    if command.text.endswith(" &"):
        opened = terminals.setdefault(command.document, [])
        opened.append(stay(shlex.split(command.text)[:-1], folders[command.document]))
        return
    done = run(checkable(command), folders[command.document])
    allowed = VERDICTS if command.text.startswith("hushfed audit") else {0}
    if command.text.startswith("hushfed site explain"):
        allowed = {1}  # the README says that this job is refused after the demo
    assert done.returncode in allowed, f"{command.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("path", sorted([*DOCUMENTS, *(ROOT / "deploy").rglob("*.md")]), ids=lambda path: path.name)
def test_every_link_inside_the_repository_leads_somewhere(path):
    links = LINK.findall(path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_shows_the_two_commands_and_the_demo():
    texts = [command.text for command in commands((ROOT / "README.md").read_text(encoding="utf-8"))]
    assert {"make demo", "make test"} <= set(texts)
    assert sum(text.startswith("hushfed demo") for text in texts) <= 1, "each demo costs the tests two minutes"


def test_commands_are_found_where_the_convention_says():
    text = (
        "```console\n$ hushfed demo --out trial \\\n    --json\nstatus  completed\n```\n"
        "```bash\n# a remark\nmake test  # all of them\n```\n"
        "<!-- not run: needs a federation -->\n```console\n$ hushfed site up site.toml\n```\n"
        "```python\nprint(1)\n```\n"
    )
    assert commands(text) == [
        Command("hushfed demo --out trial --json", True, "README.md"),
        Command("make test", True, "README.md"),
        Command("hushfed site up site.toml", False, "README.md"),
    ]
    assert checkable(commands(text)[2]) == ["hushfed", "site", "up", "--help"]


def test_a_command_that_does_not_exist_is_found(tmp_path):
    """Must not: pass over a target or a sub-command that nobody wrote."""
    assert run(checkable(Command("make tomorrow", True, "README.md")), tmp_path).returncode != 0
    assert run(checkable(Command("hushfed tomorrow now", False, "README.md")), tmp_path).returncode == 3

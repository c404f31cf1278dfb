"""The rules of the house: which way imports run, who may touch Flower, sizes, names and captions."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
FLOOR = {"common": 0, "client": 1, "server": 1, "deploy": 1, "simulations": 2}
FLOWER_ROOMS = {
    "client/link.py",
    "deploy/fleet.py",
    "deploy/up.py",
    "server/app.py",
    "server/superlink.py",
    "simulations/bench/flower_parts.py",
    "simulations/bench/flower_round.py",
    "simulations/bench/peers/flower_rounds.py",
    "simulations/flower.py",
}
LONGEST_FILE, LONGEST_BODY, MOST_ARGUMENTS = 300, 50, 5
EMPTY_NAMES = {"base", "helper", "helpers", "impl", "manager", "misc", "util", "utils"}
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def rooms(root: Path, *wings: str) -> Iterator[tuple[str, Path]]:
    """Every Python file of the wings: its name as in `client/guard.py`, and where it lies."""
    for wing in wings or FLOOR:
        for path in sorted((root / wing).rglob("*.py")):
            yield path.relative_to(root).as_posix(), path


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> set[str]:
    """Top-level names of all modules a file imports: anywhere in it, and by `import_module` with a literal."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {word.value for word in node.args if isinstance(word, ast.Constant)}
    return {str(name).split(".")[0] for name in found}


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines of the body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def upward_imports(root: Path) -> list[str]:
    found = []
    for name, path in rooms(root):
        wing = name.split("/")[0]
        for other in sorted(FLOOR.keys() & imports(tree_of(path)) - {wing}):
            if FLOOR[other] >= FLOOR[wing]:
                found.append(f"{name} imports {other}: arrows run down")
    return found


def flower_outside(root: Path) -> list[str]:
    return [
        f"{name} imports Flower; only {', '.join(sorted(FLOWER_ROOMS))} may"
        for name, path in rooms(root)
        if {"flwr", "flwr_datasets"} & imports(tree_of(path)) and name not in FLOWER_ROOMS
    ]


def too_large(root: Path) -> list[str]:
    found = []
    for name, path in rooms(root, *FLOOR, "tests"):
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE:
            found.append(f"{name} has {lines} lines, more than {LONGEST_FILE}: it holds two ideas")
        for function in functions(tree_of(path)):
            if (lines := body_lines(function)) > LONGEST_BODY:
                found.append(f"{name}: {function.name} has {lines} lines, more than {LONGEST_BODY}")
    return found


def too_many_arguments(root: Path) -> list[str]:
    """Positional arguments only: settings are keyword-only."""
    found = []
    for name, path in rooms(root):
        for function in functions(tree_of(path)):
            words = [arg.arg for arg in (*function.args.posonlyargs, *function.args.args)]
            if len([word for word in words if word not in ("self", "cls")]) > MOST_ARGUMENTS:
                found.append(f"{name}: {function.name} takes {len(words)} positional arguments")
    return found


def empty_names(root: Path) -> list[str]:
    return [
        f"{name} says nothing by its name"
        for name, _ in rooms(root, *FLOOR, "tests")
        if EMPTY_NAMES & set(re.split(r"[/_]", name.removesuffix(".py")))
    ]


def without_caption(root: Path) -> list[str]:
    return [
        f"{name} does not open with its caption"
        for name, path in rooms(root, *FLOOR, "tests")
        if not (ast.get_docstring(tree_of(path)) or "").split("\n")[0].endswith((".", "?", "!"))
    ]


def unfinished(root: Path) -> list[str]:
    return [
        f"{name}:{number} is not finished"
        for name, path in rooms(root)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]


def packages_in_tests(root: Path) -> list[str]:
    return [
        f"{name} would shadow a wing: tests are no packages"
        for name, _ in rooms(root, "tests")
        if name.endswith("__init__.py")
    ]


RULES = [
    packages_in_tests,
    upward_imports,
    flower_outside,
    too_large,
    too_many_arguments,
    empty_names,
    without_caption,
    unfinished,
]


PLANTED = [
    (upward_imports, "client/guard.py", "import server.app"),
    (upward_imports, "common/words.py", "def late():\n    from client.guard import release"),
    (upward_imports, "deploy/up.py", "from importlib import import_module\nimport_module('simulations.world')"),
    (upward_imports, "server/rounds.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import deploy.up"),
    (flower_outside, "server/rounds.py", "from flwr.serverapp import Grid"),
    (too_large, "common/words.py", "x = 1\n" * 301),
    (too_large, "common/words.py", "def long():\n" + "    x = 1\n" * 51),
    (too_many_arguments, "common/words.py", "def many(a, b, c, d, e, f):\n    return a"),
    (empty_names, "common/key_manager.py", "x = 1"),
    (empty_names, "common/utils/words.py", "x = 1"),
    (without_caption, "common/words.py", "x = 1"),
    (unfinished, "common/words.py", "def later():\n    raise NotImplementedError"),
    (packages_in_tests, "tests/server/__init__.py", ""),
]
ALLOWED = [
    (upward_imports, "simulations/world.py", "import client.session, server.rounds, deploy.up, common.job"),
    (upward_imports, "server/rounds.py", "import common.job, server.cohort"),
    (flower_outside, "server/app.py", "import flwr"),
    (too_many_arguments, "common/words.py", "def many(self, a, b, c, d, e, *, f, g):\n    return a"),
    (empty_names, "common/database.py", "x = 1"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_its_rule(rule):
    assert rule(ROOT) == []


@pytest.mark.parametrize(("rule", "name", "source"), PLANTED)
def test_a_planted_violation_is_found(tmp_path, rule, name, source):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(source)
    assert any(name in violation for violation in rule(tmp_path))


@pytest.mark.parametrize(("rule", "name", "source"), ALLOWED)
def test_what_is_allowed_is_not_reported(tmp_path, rule, name, source):
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(source)
    assert rule(tmp_path) == []


def test_a_wrong_arrow_in_a_copy_of_this_house_is_found(tmp_path):
    """Must: fail on `import server.app` in the guard of a site. Must not: have failed before."""
    for wing in FLOOR:
        shutil.copytree(ROOT / wing, tmp_path / wing, ignore=shutil.ignore_patterns("__pycache__"))
    before = upward_imports(tmp_path)
    guard = tmp_path / "client" / "guard.py"
    guard.write_text((guard.read_text() if guard.exists() else "") + "\nimport server.app\n")
    assert set(upward_imports(tmp_path)) - set(before) == {"client/guard.py imports server: arrows run down"}

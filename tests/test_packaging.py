"""The installation: the right torch, our names our own, declared dependencies, a wheel that stands alone."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from common import console

ROOT = Path(__file__).parent.parent
PACKAGES = ("server", "client", "common", "simulations", "deploy")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
IMPORT_ALL = """
import importlib, importlib.metadata, pathlib, sys
top = pathlib.Path(sys.argv[1])
for name in sys.argv[2:]:
    owners = importlib.metadata.packages_distributions()[name]
    assert set(owners) == {"hushfed"}, f"{name} comes from {owners}"
    for path in sorted((top / name).rglob("*.py")):
        parts = path.relative_to(top).with_suffix("").parts
        if parts[-1] != "__main__":
            module = importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
            assert pathlib.Path(module.__file__).is_relative_to(top), module.__file__
"""


def required(lines: list[str]) -> dict[str, Requirement]:
    """Requirements by name, those of our own extras unfolded."""
    found = {}
    for line in lines:
        wish = Requirement(line)
        if wish.name == "hushfed":
            found |= required([other for extra in wish.extras for other in EXTRAS[extra]])
        else:
            found[canonicalize_name(wish.name)] = wish
    return found


def locked() -> dict[str, list[str]]:
    """Names and pinned versions of the lock; one name may have two, for different Pythons."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            name, pinned = line.split(";")[0].rstrip(" \\").split("==")
            found.setdefault(canonicalize_name(name), []).append(pinned)
    return found


def foreign_imports(wing: str) -> dict[str, str]:
    """Top-level names of what a wing imports from elsewhere, each with a file that does.

    Scripts of peers run in environments of their own, which have what they import.
    """
    found = {}
    for path in (ROOT / wing).rglob("*.py"):
        if path.parent.name == "peers" and path.name.endswith("_rounds.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [str(node.module)]
            found |= {name.split(".")[0]: path.relative_to(ROOT).as_posix() for name in names}
    return {name: file for name, file in found.items() if name not in {*sys.stdlib_module_names, *PACKAGES}}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built once without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("hushfed-*.whl")
    return built


def test_torch_is_the_pinned_one_and_torchvision_is_absent():
    assert version("torch").split("+")[0] == "2.13.0"
    assert find_spec("torchvision") is None


@pytest.mark.parametrize("name", PACKAGES)
def test_no_other_distribution_owns_one_of_our_names(name):
    """pip and `pip check` say nothing when another wheel brings a `common` of its own."""
    assert set(packages_distributions().get(name, [])) <= {"hushfed"}
    assert Path(str(find_spec(name).origin)).parent == ROOT / name


@pytest.mark.parametrize("wing", PACKAGES)
def test_every_import_is_declared(wing):
    """A site needs no extra; only simulations may lean on the parts of `simulation`, `audit` and `ray`."""
    extras = ["hushfed[simulation,audit,ray]"] if wing == "simulations" else []
    declared = set(required([*PROJECT["dependencies"], *extras]))
    owners = packages_distributions()
    missing = {
        name: file
        for name, file in foreign_imports(wing).items()
        if not declared & {canonicalize_name(owner) for owner in owners.get(name, [])}
    }
    assert missing == {}


def test_the_lock_fits_the_project():
    pinned = locked()
    for name, wish in required([*PROJECT["dependencies"], "hushfed[dev]"]).items():
        if name != "torch":
            assert any(Version(number) in wish.specifier for number in pinned[name]), f"{wish}: run `make lock`"


def test_the_lock_leaves_torch_alone_and_names_no_place():
    """CPU and CUDA builds of torch differ; everything else is one version with its hashes, from any registry."""
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    heads = [line for line in text.splitlines() if "==" in line]
    assert text.count(" \\\n    --hash=sha256:") >= len(heads)
    assert all(line.endswith("\\") for line in heads)
    assert not {"torch", "torchvision", "triton"} & locked().keys()
    assert not [name for name in locked() if name.startswith(("nvidia-", "cuda-"))]
    assert not [word for word in ("://", "--index", "--find-links", "file:") if word in text]


def test_the_wheel_holds_every_file_of_the_wings_and_nothing_else(wheel):
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    kinds = {path for wing in PACKAGES for path in (ROOT / wing).rglob("*") if path.is_file()}
    outside = {path.relative_to(ROOT).as_posix() for path in kinds if "__pycache__" not in path.parts}
    assert inside == outside


def test_the_wheel_imports_whole_from_an_empty_folder(wheel, tmp_path):
    """Must: every module of the wheel. Must not: find anything of this checkout on the way."""
    installed, empty = tmp_path / "installed", tmp_path / "empty"
    zipfile.ZipFile(wheel).extractall(installed)
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(installed), *PACKAGES],
        cwd=empty,
        env={"PYTHONPATH": str(installed), "PATH": "/usr/bin:/bin", "HOME": str(empty)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_wheel_brings_the_command_its_doors_and_its_licence(wheel):
    files = {name.split("/", 1)[1]: name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" in name}
    text = {name: zipfile.ZipFile(wheel).read(path).decode() for name, path in files.items()}
    assert "hushfed = common.console:main" in text["entry_points.txt"]
    assert "[hushfed.commands]" in text["entry_points.txt"]
    assert "License-Expression: Apache-2.0" in text["METADATA"]
    assert "Apache License" in text["licenses/LICENSE"]


@pytest.mark.parametrize("door", PROJECT["entry-points"]["hushfed.commands"])
def test_every_door_opens_and_explains_itself(door, capsys):
    with pytest.raises(SystemExit) as end:
        console.main([door, "--help"])
    out = capsys.readouterr().out
    assert end.value.code == console.Exit.DONE
    assert "--json" in out or "Commands" in out

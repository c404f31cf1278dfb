"""Which code a result names: every module that a run can reach, and nothing that it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations.study import code
from simulations.study.code import PLAYER, code_digest, modules


def test_what_decides_a_result_is_in_and_what_only_shows_it_is_not() -> None:
    found = modules(PLAYER)
    for name in ("simulations.world", "client.labour", "server.rounds", "common.privacy.accounting", "common.job"):
        assert name in found
    assert {"client", "simulations.study"} <= found, "packages too"
    for name in ("simulations.study.table", "simulations.study.plan", "simulations.demo", "client.link"):
        assert name not in found


@pytest.mark.parametrize(
    "source",
    [
        "import common.two",
        "from common import two",
        "from common.two import word",
        "def late():\n    from common.two import word",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import common.two",
    ],
)
def test_every_way_to_import_is_seen(tmp_path: Path, source: str) -> None:
    (tmp_path / "common").mkdir()
    for name, text in (("__init__", ""), ("one", source), ("two", "import common.one"), ("three", "")):
        (tmp_path / "common" / f"{name}.py").write_text(text)
    assert modules("common.one", tmp_path) == {"common", "common.one", "common.two"}


def test_the_digest_follows_sources_and_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Must: change with one byte of any module, or one release. Must not: change with where it is installed."""
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("")
    (tmp_path / "common" / "one.py").write_text("import common.two\n")
    (tmp_path / "common" / "two.py").write_text("x = 1\n")
    seen = []
    for change in (
        lambda: None,
        lambda: (tmp_path / "common" / "two.py").write_text("x = 2\n"),
        lambda: monkeypatch.setattr(code, "versions", lambda: {"torch": "9"}),
    ):
        change()
        code_digest.cache_clear()
        seen.append(code_digest("common.one", tmp_path))
    code_digest.cache_clear()
    assert len(set(seen)) == 3

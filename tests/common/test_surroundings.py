"""Folders of sockets: private, short enough, and gone when nobody is left who could use them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from common import surroundings
from common.surroundings import is_alive, socket_folder


@pytest.mark.parametrize("deep", [False, True], ids=["in its folder", "in the folder for temporary files"])
def test_only_what_dead_owners_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deep: bool) -> None:
    """Must not: touch a folder whose owner lives, that has no note of an owner, or that is only linked to."""
    place = tmp_path / ("d" * 100 if deep else "s")
    folder = tmp_path / "temporary" if deep else place
    folder.mkdir()
    monkeypatch.setattr(surroundings, "SOCKET_PATH_LIMIT", 90 if deep else 4096)
    monkeypatch.setattr(surroundings.tempfile, "tempdir", str(tmp_path / "temporary"))
    dead = {"hushfed-dead": "999999999 12345", "hushfed-reborn": f"{os.getpid()} 1"}
    kept = {"hushfed-making": None, "hushfed-scrap": "x", "other-dead": "999999999 12345"}
    for name, owner in (dead | kept).items():
        (folder / name).mkdir()
        if owner is not None:
            (folder / name / "owner").write_text(owner)
    mine = socket_folder(place)
    again = socket_folder(place)
    assert {path.name for path in folder.iterdir()} == {*kept, mine.name, again.name}
    assert mine.parent == folder
    assert mine.stat().st_mode & 0o777 == 0o700


def test_a_process_is_alive_or_not() -> None:
    assert is_alive(os.getpid())
    assert not is_alive(999999999)
    assert not is_alive(0)

"""A coordinator that meets another one at the same run: it leaves, and only its own word behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from common.errors import Code, Refusal
from server.coordinator import RunSettings, run
from server.gathering import Sites
from server.progress import be_alone


def test_the_second_says_who_is_at_work_beside_what_the_first_wrote(tmp_path: Path) -> None:
    """Must: leave its refusal in a file of its own. Must not: overwrite or remove the other's, or ask a site."""
    settings = RunSettings(federation=tmp_path, job=tmp_path / "job.toml", state=tmp_path / "state", number=5)
    unasked = cast("Sites", None)  # whoever asked it would fail
    settings.state.mkdir()
    settings.refusal.write_text("of the first")
    with be_alone(settings.state), pytest.raises(Refusal) as refused:
        run(unasked, settings)
    assert refused.value.code is Code.ALREADY_RUNNING
    assert json.loads(settings.turned_away.read_text()) == refused.value.as_dict()
    assert settings.refusal.read_text() == "of the first"

"""A federation of which a part will not run again: said once, and ended when nothing is left to run for."""

from __future__ import annotations

import pytest

from common.errors import Code, Refusal
from deploy.lost import Lost

LOCKED = Refusal(Code.PROCESS_FAILED, "agent-b does not run", "another process holds its keys", "Stop it")


def test_a_site_that_is_lost_is_said_once_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, Refusal] = {}
    look = Lost(lambda: found, ["a", "b"])
    look()
    assert capsys.readouterr().err == ""
    found["agent-b"] = LOCKED
    for _ in range(3):
        look()
    told = " ".join(capsys.readouterr().err.split())
    assert told.count("agent-b does not run: another process holds its keys. Stop it.") == 1
    assert "The others go on" in told
    found["link-b"] = Refusal(Code.PROCESS_FAILED, "link-b does not run", "why", "do")
    look()
    assert "link-b" in capsys.readouterr().err


@pytest.mark.parametrize("names", [["agent-a", "link-b"], ["agent-b", "agent-a", "link-a"]])
def test_a_federation_without_sites_ends(names: list[str]) -> None:
    with pytest.raises(Refusal, match="none of its 2 sites runs") as refused:
        Lost(lambda: dict.fromkeys(names, LOCKED), ["a", "b"])()
    assert refused.value.code is Code.PROCESS_FAILED
    assert refused.value.do == "Stop it"


@pytest.mark.parametrize("sites", [[], ["a", "b"], ["superlink"]])
@pytest.mark.parametrize("name", ["superlink", "executor"])
def test_what_everybody_needs_ends_it_at_once(name: str, sites: list[str]) -> None:
    """With no site here (`--server-only`), or one of that name, too."""
    with pytest.raises(Refusal, match="holds its keys"):
        Lost(lambda: {name: LOCKED}, sites)()
    Lost(dict, sites)()


def test_a_site_may_have_a_hyphen_in_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    Lost(lambda: {"agent-clinic-b": LOCKED}, ["clinic-a", "clinic-b"])()
    assert "agent-b does not run" in capsys.readouterr().err

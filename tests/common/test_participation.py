"""Who contributed: counted from the rounds, with the codes of those who did not, never from the manifest alone."""

from __future__ import annotations

from typing import Any

from common.participation import absences, contributed, participation, unverified

SITES = ["a", "b", "c", "d"]
ROUNDS: list[dict[str, Any]] = [
    {"sites": ["a", "b"], "refusals": []},
    {"sites": ["a"], "refusals": [{"site": "b", "code": "SITE_UNREACHABLE"}, {"site": "c", "code": "LEDGER_LOCKED"}]},
]
RUN: dict[str, Any] = {
    "manifest": {"sites": [{"name": name} for name in SITES]},
    "refusals": [{"site": "c", "code": "POLICY_PRIVACY"}],
    "ledgers_missing": [{"site": "b", "code": "AGENT_UNAVAILABLE"}, {"site": "a", "code": "LEDGER_ROLLED_BACK"}],
}


def test_every_site_has_its_rounds_and_its_codes() -> None:
    rows = participation(RUN, ROUNDS)
    assert [(row["site"], row["rounds"], row["of"]) for row in rows] == [
        ("a", 2, 2),
        ("b", 1, 2),
        ("c", 0, 2),
        ("d", 0, 2),
    ]
    assert [row["codes"] for row in rows] == [[], ["SITE_UNREACHABLE"], ["LEDGER_LOCKED", "POLICY_PRIVACY"], []]
    assert contributed(rows) == ["a", "b"]


def test_who_gave_nothing_is_said_with_its_code() -> None:
    assert absences(participation(RUN, ROUNDS)) == [
        "c contributed to no round: LEDGER_LOCKED, POLICY_PRIVACY.",
        "d contributed to no round: it was not online.",
    ]


def test_a_missing_ledger_is_said_with_its_code_and_what_to_do() -> None:
    lost, silent = unverified(participation(RUN, ROUNDS))
    assert "of a " in lost
    assert "(LEDGER_ROLLED_BACK)" in lost
    assert "newest copy" in lost
    assert "of b " in silent
    assert "(AGENT_UNAVAILABLE)" in silent
    assert "Start the site; then `hushfed server resume` asks for it again." in silent


def test_a_record_that_names_nobody_is_no_fault() -> None:
    run = {"manifest": RUN["manifest"]}
    assert unverified(participation(run, ROUNDS)) == []
    assert absences(participation(run, [])) == [f"{name} contributed to no round: it was not online." for name in SITES]

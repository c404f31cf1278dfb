"""Nothing that is wrong with a run's ledgers passes: each planted fault has its code, an honest run has none.

The coordinator signs whatever these tests change: what sites signed must tell the fault all the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.errors import Code, Refusal
from simulations.audits.privacy import audit
from simulations.audits.runs import read_run
from tests.simulations.recorded import ROUNDS, sign, write_run


def edit(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    facts = json.loads((run / "run.json").read_text())
    change(facts)
    (run / "run.json").write_text(json.dumps(facts))
    sign(run)


def edit_rounds(run: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    rows = [json.loads(line) for line in (run / "rounds.jsonl").read_text().splitlines()]
    change(rows)
    (run / "rounds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sign(run)


def lines(run: Path, site: str = "clinic-a") -> list[bytes]:
    return (run / "ledgers" / f"{site}.jsonl").read_bytes().splitlines(keepends=True)


def put(run: Path, content: list[bytes], site: str = "clinic-a") -> None:
    (run / "ledgers" / f"{site}.jsonl").write_bytes(b"".join(content))


def problems(run: Path) -> list[str]:
    found = audit(read_run(run))
    assert found["verified"] is not bool(found["problems"])
    assert found["verdict"] == ("FAIL" if found["problems"] else "PASS")
    return list(found["problems"])


def test_an_honest_run_verifies(honest: Path):
    found = audit(read_run(honest))
    assert (found["verified"], found["problems"], found["verdict"]) == (True, [], "PASS")
    assert [site["site"] for site in found["sites"]] == ["clinic-a", "clinic-b", "clinic-c", "clinic-d"]
    for site in found["sites"]:
        assert site["recomputed"] == pytest.approx(site["epsilon"], abs=1e-3)
        assert {"site", "epsilon", "recomputed", "delta", "unit", "mode", "entries"} <= site.keys()
    assert found["epsilon"] == max(site["recomputed"] for site in found["sites"])
    assert (found["delta"], found["unit"], found["mode"], found["limit"]) == (1e-4, "record", "M2", 3.0)
    assert all("add or remove one" in claim and "Not covered" in claim for claim in found["claims"])
    json.dumps(found, allow_nan=False)


def test_the_epsilon_of_this_run_stands_apart_from_that_of_all_runs_in_the_ledgers(honest: Path, tmp_path: Path):
    """Must: hold this run alone against its promise. Must not: say PASS beside a figure above the promise alone."""
    alone, found = audit(read_run(honest)), audit(read_run(write_run(tmp_path / "run", rounds=ROUNDS, earlier=30)))
    assert (found["verdict"], found["promised"], found["limit"]) == ("PASS", 3.0, 3.0)
    assert found["epsilon"] > found["promised"] > found["this_run"]
    assert found["this_run"] == pytest.approx(alone["this_run"], abs=1e-3)
    assert alone["this_run"] == alone["epsilon"]
    for site in found["sites"]:
        assert site["run_epsilon"] == max(site["this_run"].values()) < site["recomputed"]


def test_a_failed_audit_states_no_epsilon_of_this_run(run: Path):
    edit(run, lambda facts: facts["heads"]["clinic-a"].update(epsilon=0.5))
    assert audit(read_run(run))["this_run"] is None


def test_a_changed_digit_breaks_the_chain(run: Path):
    content = lines(run)
    content[3] = content[3].replace(b'"round":2', b'"round":3', 1)
    put(run, content)
    assert "CHAIN_BROKEN" in problems(run)


@pytest.mark.parametrize("how", ["removed", "swapped", "repeated"])
def test_lines_that_are_removed_swapped_or_repeated_break_the_chain(run: Path, how: str):
    content = lines(run)
    changed = {
        "removed": content[:2] + content[3:],
        "swapped": [*content[:2], content[3], content[2], *content[4:]],
        "repeated": [*content[:3], *content[2:]],
    }
    put(run, changed[how])
    assert "CHAIN_BROKEN" in problems(run)


def test_a_truncated_ledger_has_the_wrong_head(run: Path):
    put(run, lines(run)[:-2])
    assert {"HEAD_MISMATCH", "ENTRY_MISSING"} <= set(problems(run))


def test_a_ledger_signed_by_another_key_is_refused(run: Path):
    def swap(facts: dict[str, Any]) -> None:
        facts["manifest"]["sites"][0]["identity"] = "11" * 32

    edit(run, swap)
    assert problems(run) == ["SIGNATURE_INVALID"]


def test_the_ledger_of_another_site_is_refused(run: Path):
    put(run, lines(run, "clinic-b"))
    assert {"SIGNATURE_INVALID", "SITE_MISMATCH", "HEAD_MISMATCH"} <= set(problems(run))


def test_a_missing_ledger_is_found(run: Path):
    (run / "ledgers" / "clinic-c.jsonl").unlink()
    assert {"LEDGER_MISSING", "ENTRY_MISSING"} == set(problems(run))
    assert audit(read_run(run))["epsilon"] is None, "an epsilon that cannot be known has no bound"


@pytest.mark.parametrize("content", [b"", b"junk\n", b"{}\n"])
def test_a_ledger_of_a_coordinator_that_adds_no_noise_is_found(run: Path, content: bytes):
    """Must not: pass over a file that stands among the run's artifacts and that nobody signed."""
    (run / "coordinator.jsonl").write_bytes(content)
    found = audit(read_run(run))
    assert [(one["code"], one["site"]) for one in found["findings"]] == [("RECORD_MISMATCH", "coordinator")]
    assert found["epsilon"] is None


@pytest.mark.parametrize("told", [0.5, 0, -1.0])
def test_a_figure_below_what_the_plans_cost_is_found(run: Path, told: float):
    edit(run, lambda facts: facts["heads"]["clinic-a"].update(epsilon=told))
    assert problems(run) == ["EPSILON_UNDERSTATED"]


def test_a_figure_above_what_the_plans_cost_is_no_fault(run: Path):
    edit(run, lambda facts: facts["heads"]["clinic-a"].update(epsilon=3.0))
    assert problems(run) == []


def test_a_round_that_was_not_charged_is_found(run: Path):
    edit_rounds(run, lambda rows: rows[4]["sites"].append("clinic-d"))
    found = audit(read_run(run))
    assert found["problems"] == ["ENTRY_MISSING"]
    assert "train in round 5" in found["findings"][0]["detail"]


def test_counts_that_were_not_charged_are_found(run: Path):
    edit(run, lambda facts: facts["evaluation"].update(round=2))
    assert {"ENTRY_MISSING"} <= set(problems(run))


def test_a_sum_of_fewer_sites_than_share_its_noise_is_found(run: Path):
    edit_rounds(run, lambda rows: rows[0].update(sites=["clinic-a"]))
    assert problems(run) == ["NOISE_TOO_SMALL"]


def test_a_site_named_twice_does_not_count_twice(run: Path):
    """The attack: name one site as often as noise was counted on."""
    edit_rounds(run, lambda rows: rows[0].update(sites=["clinic-a", "clinic-a", "clinic-a"]))
    assert problems(run) == ["NOISE_TOO_SMALL", "ROUNDS_MISMATCH"]


@pytest.mark.parametrize("sites", [[], ["clinic-a"]])
def test_counts_of_fewer_sites_than_share_their_noise_are_found(run: Path, sites: list[str]):
    edit(run, lambda facts: facts["evaluation"].update(sites=sites))
    assert problems(run) == ["NOISE_TOO_SMALL"]


def test_a_round_that_names_no_site_is_found(run: Path):
    edit_rounds(run, lambda rows: rows[0].update(sites=[]))
    assert problems(run) == ["NOISE_TOO_SMALL"]


@pytest.mark.parametrize("change", [{"identity": "zz"}, {"identity": ""}, {"id": 2}, {"name": "clinic-b"}])
def test_a_manifest_that_does_not_name_every_site_once_is_found(run: Path, change: dict[str, Any]):
    edit(run, lambda facts: facts["manifest"]["sites"][0].update(change))
    assert "MANIFEST_INVALID" in problems(run)


def test_replayed_noise_voids_every_claim(tmp_path: Path):
    folder = write_run(tmp_path / "replayed", rounds=6, noise="replay")
    found = audit(read_run(folder))
    assert found["problems"] == ["NOISE_REPLAY"]
    assert found["epsilon"] is None
    assert all(site["recomputed"] is None and site["epsilon"] is None for site in found["sites"])
    assert all("no differential privacy is claimed" in claim for claim in found["claims"])


def test_a_failed_audit_states_no_epsilon_and_claims_nothing_for_any_site(run: Path):
    edit(run, lambda facts: facts["heads"]["clinic-a"].update(epsilon=0.5))
    found = audit(read_run(run))
    assert found["epsilon"] is None
    assert all("no differential privacy is claimed" in claim for claim in found["claims"])
    assert all(site["recomputed"] > 0.5 for site in found["sites"])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"status": "running"}, Code.RUN_FAILED), ({"schema": 9}, Code.DATA_INVALID),
        ({"heads": None}, Code.DATA_INVALID), ({"manifest": {}}, Code.DATA_INVALID), ({"job": 3}, Code.DATA_INVALID),
        ({"job": {}}, Code.DATA_INVALID), ({"job": {"privacy": "M2"}}, Code.DATA_INVALID),
        ({"heads": {"clinic-a": "ab"}}, Code.DATA_INVALID), ({"run": 5}, Code.DATA_INVALID),
        ({"evaluation": {"round": True, "sites": []}}, Code.DATA_INVALID),
        ({"evaluation": {"round": 6, "sites": "clinic-a"}}, Code.DATA_INVALID),
        ({"manifest": {"sites": [{"id": 1}]}}, Code.DATA_INVALID), ({"fingerprints": ["a"]}, Code.DATA_INVALID),
    ],
)  # fmt: skip
def test_what_is_no_finished_run_is_refused(run: Path, change: dict[str, Any], code: Code):
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | change))
    with pytest.raises(Refusal) as caught:
        read_run(run)
    assert caught.value.code is code


@pytest.mark.parametrize("number", ["1", True, None, 1.5, float("nan")])
def test_a_round_number_that_is_no_number_is_refused(run: Path, number: object):
    rows = (run / "rounds.jsonl").read_text().splitlines()
    first = json.loads(rows[0]) | {"round": number}
    (run / "rounds.jsonl").write_text("\n".join([json.dumps(first), *rows[1:]]))
    with pytest.raises(Refusal) as caught:
        read_run(run)
    assert caught.value.code is Code.DATA_INVALID


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(Refusal) as caught:
        read_run(tmp_path)
    assert caught.value.code is Code.FILE_MISSING


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_site_that_was_struck_from_the_manifest_is_found(run: Path, kept: int):
    """Must not: pass because nobody is left whose ledger could fail."""

    def strike(facts: dict[str, Any]) -> None:
        facts["manifest"]["sites"] = facts["manifest"]["sites"][:kept]

    edit(run, strike)
    assert "MANIFEST_INVALID" in problems(run)

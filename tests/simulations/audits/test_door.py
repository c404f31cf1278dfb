"""The audit commands: keys and exit codes that scripts rely on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from simulations.audits.door import app
from tests.simulations.recorded import MANIFEST, SIGNERS, signed_manifest, write_run

METRIC = {"value", "low", "high", "tolerance", "verdict"}
GROUP = {"group", "n", "selection_rate", "true_positive_rate", "false_positive_rate", "accuracy"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_run(tmp_path_factory.mktemp("door") / "run", rounds=6))


@pytest.fixture
def table(tmp_path: Path) -> str:
    """2000 rows: women are selected in 60 %, men in 20 %, whatever their label is."""
    rows = [f"{sex},{i % 2},{int(i % 10 < cut)}" for sex, cut in (("f", 6), ("m", 2)) for i in range(1000)]
    path = tmp_path / "table.csv"
    path.write_text("sex,y,p\n" + "\n".join(rows) + "\n")
    return str(path)


def call(*words: str) -> tuple[int, dict[str, Any]]:
    outcome = CliRunner().invoke(app, [*words, "--json"])
    return outcome.exit_code, json.loads(outcome.stdout.splitlines()[-1])


def test_privacy_passes_with_its_keys(run: str):
    code, found = call("privacy", run)
    assert code == 0
    assert {"verified", "problems", "sites", "claims"} <= found.keys()
    assert found["verified"] is True


def test_privacy_fails_with_exit_code_1(run: str, tmp_path: Path):
    copy = write_run(tmp_path / "run", rounds=6)
    (copy / "ledgers" / "clinic-b.jsonl").write_bytes(b"{}\n")
    code, found = call("privacy", str(copy))
    assert code == 1
    assert "CHAIN_BROKEN" in found["problems"]


@pytest.fixture
def known(run: str, tmp_path: Path) -> dict[str, str]:
    """What an auditor got elsewhere: the signed manifest, the key of governance, the heads that keepers noted."""
    (tmp_path / "manifest.json").write_bytes(signed_manifest())
    (tmp_path / "governance.pub").write_text(SIGNERS["governance"].public.hex() + "\n")
    heads = json.loads((Path(run) / "run.json").read_text())["heads"]
    (tmp_path / "heads.json").write_text(json.dumps({site: row["head"] for site, row in heads.items()}))
    (tmp_path / "wrong.json").write_text(json.dumps({"clinic-a": "ab" * 32}))
    (tmp_path / "broken.json").write_text(json.dumps({"clinic-a": 5}))
    (tmp_path / "other.pub").write_text("ab" * 32)
    return {"run": run, "at": str(tmp_path), "hex": SIGNERS["governance"].public.hex()}


def test_privacy_is_anchored_by_what_the_auditor_got_elsewhere(known: dict[str, str]):
    words = ["privacy", "{run}", "--manifest", "{at}/manifest.json", "--heads", "{at}/heads.json", "--governance"]
    for key in ("{at}/governance.pub", "{hex}"):
        code, found = call(*[word.format(**known) for word in (*words, key)])
        assert (code, found["problems"]) == (0, [])
        assert found["anchors"] == {"manifest": True, "heads": ["clinic-a", "clinic-b", "clinic-c", "clinic-d"]}


def test_a_head_that_is_not_in_its_ledger_fails(known: dict[str, str]):
    code, found = call("privacy", known["run"], "--heads", f"{known['at']}/wrong.json")
    assert (code, found["problems"]) == (1, ["HEAD_MISMATCH"])
    assert found["epsilon"] is None


@pytest.mark.parametrize(
    "words",
    [
        ["--manifest", "{at}/manifest.json"], ["--governance", "{hex}"],
        ["--manifest", "{at}/manifest.json", "--governance", "{at}/other.pub"],
        ["--manifest", "{at}/manifest.json", "--governance", "{at}/heads.json"],
        ["--manifest", "{at}/heads.json", "--governance", "{hex}"],
        ["--manifest", "{at}/none.json", "--governance", "{hex}"], ["--heads", "{at}/none.json"],
        ["--manifest", "{at}/manifest.json", "--governance", "zzz"],
        ["--heads", "{at}/broken.json"], ["--heads", "{at}/manifest.json"], ["--heads", "{at}/governance.pub"],
    ],
)  # fmt: skip
def test_an_anchor_that_does_not_hold_is_refused(known: dict[str, str], words: list[str]):
    code, found = call("privacy", known["run"], *[word.format(**known) for word in words])
    assert code == 3
    assert found["refusal"]["code"] != "INTERNAL"


def test_a_key_that_did_not_sign_the_manifest_or_is_none_is_told_so(known: dict[str, str]):
    words = ["privacy", known["run"], "--manifest", f"{known['at']}/manifest.json", "--governance"]
    _, found = call(*words, f"{known['at']}/other.pub")
    assert found["refusal"]["code"] == "E_SIG"
    assert "--governance did not sign it" in found["refusal"]["why"]
    _, found = call(*words, secret := "5e" * 31)
    assert "64 hex digits" in found["refusal"]["why"]
    assert secret not in json.dumps(found)


def test_a_person_reads_the_digest_of_the_manifest_and_what_to_compare_it_with(known: dict[str, str]):
    told = " ".join(CliRunner().invoke(app, ["privacy", known["run"]]).stdout.split())
    assert MANIFEST.digest.hex() in told
    assert "Compare the manifest's digest with the one that the federation's governance tells you" in told
    words = ["--manifest", f"{known['at']}/manifest.json", "--governance", known["hex"]]
    told = CliRunner().invoke(app, ["privacy", known["run"], *words]).stdout
    assert "The manifest is the one you gave" in told


def test_a_person_reads_what_this_run_cost_beside_its_promise_and_all_runs_apart(tmp_path: Path):
    folder = str(write_run(tmp_path / "run", rounds=6, earlier=30))
    told = CliRunner().invoke(app, ["privacy", folder]).stdout
    said = dict(line.split(maxsplit=1) for line in told.splitlines() if line.startswith("epsilon."))
    assert {"epsilon.this_run", "epsilon.promised_for_it", "epsilon.all_runs"} == said.keys()
    assert float(said["epsilon.this_run"]) < float(said["epsilon.promised_for_it"]) == 3
    assert float(said["epsilon.all_runs"]) > 3
    assert not any(line.startswith("limit") for line in told.splitlines())


def test_fairness_of_a_run_without_tolerance_is_inconclusive(run: str):
    code, found = call("fairness", run)
    assert code == 2
    assert found["reason"] == "no tolerance declared"
    assert all(metric.keys() >= METRIC for metric in found["metrics"].values())
    assert all(group.keys() >= GROUP for group in found["groups"])


def test_fairness_of_a_run_by_one_attribute(run: str):
    code, found = call("fairness", run, "--sensitive", "sex", "--tolerance", "0.5")
    assert code == 0
    assert [group["group"] for group in found["groups"]] == ["sex=female", "sex=male"]


def test_fairness_of_a_table_fails_and_passes(table: str):
    words = ("fairness", "--table", table, "--label", "y", "--score", "p", "--sensitive", "sex", "--tolerance")
    code, found = call(*words, "0.1")
    assert (code, found["verdict"]) == (1, "FAIL")
    assert found["metrics"]["demographic_parity_difference"]["value"] == pytest.approx(0.4)
    code, found = call(*words, "0.6")
    assert (code, found["verdict"]) == (0, "PASS")


def test_the_threshold_is_the_readers(table: str):
    words = ("fairness", "--table", table, "--label", "y", "--score", "p", "--sensitive", "sex", "--threshold", "2")
    assert call(*words)[1]["metrics"]["demographic_parity_difference"]["value"] == 0.0


def test_a_person_reads_tables(table: str):
    words = ["fairness", "--table", table, "--label", "y", "--score", "p", "--sensitive", "sex", "--tolerance", "0.1"]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 1
    assert "FAIL" in outcome.stdout
    assert "sex=f" in outcome.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["fairness"], ["fairness", "--label", "y"], ["fairness", "{run}", "--table", "{table}"],
        ["fairness", "--table", "{table}", "--label", "y"], ["fairness", "{run}", "--sensitive", "race"],
        ["fairness", "{run}", "--tolerance", "0"], ["fairness", "{run}", "--tolerance", "nan"], ["privacy", "nowhere"],
        ["fairness", "--table", "nowhere.csv", "--label", "y", "--score", "p", "--sensitive", "sex"],
        ["fairness", "--table", "{table}", "--label", "y", "--score", "p"],
    ],
)  # fmt: skip
def test_what_cannot_be_audited_is_refused_with_exit_code_3(run: str, table: str, words: list[str]):
    code, found = call(*[word.format(run=run, table=table) for word in words])
    assert code == 3
    assert {"code", "what", "why", "do"} == found["refusal"].keys()
    assert found["refusal"]["code"] != "INTERNAL"

"""No epsilon is printed without what it means."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from common.identity import Signer
from common.privacy.accounting import accountant
from common.privacy.claims import claim_of, promise
from common.privacy.door import app
from common.privacy.entries import Facts, Kind
from common.privacy.ledger import Owner, new_entry, open_ledger
from common.privacy.plan import PrivacySettings, plan_counts, plan_training

SHARED = {"unit": "record", "epsilon": 2.0, "delta": 1e-5, "clip": 1.0, "sampling_rate": 0.2, "spare_rounds": 0}
M2 = {"mode": "M2", "colluding": 1, "metric_share": 0.0, "evaluation_epsilon": 1.0, **SHARED}
PLACE = {"rounds": 4, "local_steps": 1, "dimension": 3, "quorum": 3, "sites": 3, "records": 200}
NOT_COVERED = (
    "Not covered: that the site took part, when and how long; the number of its records; choices made by looking at "
    "results."
)
PEOPLE = "A person with several records, or with records at several sites, has a larger epsilon."
ONE_OR_OTHER = "a record is one or the other, by a keyed hash of itself, so the larger of the two counts."


def ledger_with(tmp_path, *plans):
    ledger = open_ledger(tmp_path / "ledger.sqlite", Owner(1, "ab" * 32), Signer.from_seed(bytes(32)))
    for plan in plans:
        ledger.append(
            new_entry(Kind.RESERVE, facts=Facts(), partition=plan.partition, plan_id=plan.plan_id, plan=plan, steps=1)
        )
    entries = ledger.entries
    ledger.close()
    return entries


def test_the_claim_of_shared_noise(tmp_path):
    settings = PrivacySettings(**M2)
    plans = plan_training(settings, **PLACE), plan_counts(settings, cells=4, releases=1, quorum=3)
    claim = claim_of("clinic-a", ledger_with(tmp_path, plans[0], *plans), 1e-5)
    assert (
        "\n".join(claim.sentences())
        == f"""\
Site clinic-a: (1.604, 1e-05)-differential privacy for one record (add or remove one), over all 3 releases that its \
ledger holds, in all runs.
It holds against the server, every user of the model and colluding sites, while the noise of at least 2 honest sites \
is in every sum and no more of the sites that unmask side with the server than the manifest allows for.
Training records: epsilon 1.604; held-out records: epsilon 1; {ONE_OR_OTHER}
Sampling: counts of held-out records without sampling, training Poisson at rate 0.2. Accountant: {accountant()}. \
Noise: system entropy.
{PEOPLE}
{NOT_COVERED}"""
    )


def test_the_claim_of_noise_of_ones_own(tmp_path):
    settings = PrivacySettings(mode="M1", evaluation_epsilon=1.0, **SHARED)
    claim = claim_of("clinic-a", ledger_with(tmp_path, plan_training(settings, **PLACE)), 1e-5)
    assert claim.sentences()[1] == (
        "It holds against everyone outside the site: the server, the other sites and every user of the model."
    )


def test_a_void_claim_says_why_and_shows_no_number(tmp_path):
    replayed = plan_training(PrivacySettings(**M2, noise="replay"), **PLACE)
    plain = plan_training(PrivacySettings(mode="none"), **PLACE)
    claim = claim_of("clinic-a", ledger_with(tmp_path, replayed, plain), 1e-5)
    assert (
        "\n".join(claim.sentences())
        == """\
Site clinic-a: no differential privacy is claimed, because a release had no noise; a release had noise that can be \
repeated.
Any epsilon of these releases would be void."""
    )


def test_nothing_released_is_said_so(tmp_path):
    assert claim_of("clinic-a", ledger_with(tmp_path), 1e-5).sentences() == ("Site clinic-a: nothing was released.",)


def test_a_promise_is_the_claim_after_all_planned_releases():
    plan = plan_training(PrivacySettings(**M2), **PLACE)
    assert promise("clinic-a", [(plan, 4)], 1e-5).sentences()[0].startswith("Site clinic-a: (2, 1e-05)")


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (["epsilon", "--sigma", "1.0"], "epsilon", 1.8282),
        (["sigma", "--epsilon", "1.8285"], "sigma", 1.0),
    ],
)
def test_the_door_prints_a_figure_with_its_meaning(words, key, value):
    outcome = CliRunner().invoke(app, [*words, "--q", "0.01", "--steps", "1000", "--delta", "1e-5", "--json"])
    assert outcome.exit_code == 0
    table = json.loads(outcome.stdout.splitlines()[-1])
    assert table[key] == pytest.approx(value, abs=0.002)
    assert (table["unit"], table["relation"]) == ("record", "add-or-remove-one")
    assert table["accountant"] == accountant()
    for word in ("record", "add or remove one", "Poisson", "not covered", "1e-05"):
        assert word in table["claim"]


def test_the_door_refuses_by_name():
    words = ["epsilon", "--q", "2", "--sigma", "1", "--steps", "10", "--delta", "1e-5", "--json"]
    outcome = CliRunner().invoke(app, words)
    assert outcome.exit_code == 3
    assert "q = 2" in json.loads(outcome.stdout.splitlines()[-1])["refusal"]["what"]

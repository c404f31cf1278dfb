"""No epsilon is printed without what it means."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from common.identity import Signer
from common.privacy.accounting import accountant, epsilon
from common.privacy.claims import claim_of, promise, sampled_claim
from common.privacy.door import app
from common.privacy.entries import Facts, Kind
from common.privacy.ledger import Owner, new_entry, open_ledger
from common.privacy.plan import PrivacySettings, plan_counts, plan_training
from common.privacy.settings import LocalPrivacy
from common.privacy.site_plan import plan_local, plan_site

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
is in every sum and no more unmasking sites collude than its manifest allows for (corrupt_max).
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


def test_for_a_person_with_several_records_the_door_says_so_and_asks_for_more_noise():
    words = ["--q", "0.05", "--steps", "20", "--delta", "1e-5", "--records", "3", "--json"]
    outcome = CliRunner().invoke(app, ["epsilon", "--sigma", "2.0", *words])
    table = json.loads(outcome.stdout.splitlines()[-1])
    single = epsilon(q=0.05, sigma=2.0, steps=20, delta=1e-5)
    assert single < table["epsilon"] < 6 * single
    assert (table["unit"], table["records"]) == ("person", 3)
    assert "for one person (add or remove one), with at most 3 records" in table["claim"]
    outcome = CliRunner().invoke(app, ["sigma", "--epsilon", str(table["epsilon"]), *words])
    assert json.loads(outcome.stdout.splitlines()[-1])["sigma"] == pytest.approx(2.0, abs=0.01)
    outcome = CliRunner().invoke(app, ["epsilon", "--sigma", "2.0", *words, "--records", "0"])
    assert outcome.exit_code == 3


SITE = {"unit": "site", "epsilon": 6.0, "delta": 1e-5, "clip": 1.0, "spare_rounds": 0, "evaluation_epsilon": 1.0}
WHOLE = {"rounds": 4, "dimension": 3, "quorum": 3, "sites": 3}


def test_the_claim_for_a_whole_site_names_its_unit_and_whom_one_must_trust(tmp_path):
    settings = PrivacySettings(mode="M3", **SITE)
    plans = plan_site(settings, **WHOLE), plan_counts(settings, cells=4, releases=1, quorum=3)
    claim = claim_of("clinic-a", ledger_with(tmp_path, plans[0], *plans), 1e-5)
    assert (
        "\n".join(claim.sentences())
        == f"""\
Site clinic-a: (4.006, 1e-05)-differential privacy for one site (add or remove one), all its training records \
together, over all 2 training releases that its ledger holds, in all runs.
It holds against every user of the models, who trust the coordinator with noise of the planned size; nothing is \
claimed against the coordinator, which sees each sum of updates without noise.
One training record is protected at least as well, against the same.
Held-out records: (1, 1e-05)-differential privacy for one record (add or remove one) in released counts (times \
released: 1), against everyone outside the site: the server, the other sites and every user of the model; no count \
is bounded for the whole site.
Sampling: counts of held-out records without sampling, training without sampling. Accountant: {accountant()}. \
Noise: system entropy.
{PEOPLE}
{NOT_COVERED}"""
    )


def test_two_units_are_two_sentences_and_two_jobs_name_the_filter(tmp_path):
    settings = PrivacySettings(
        mode="M4", colluding=1, local=LocalPrivacy(epsilon=2.0, clip=1.0, sampling_rate=0.2), **SITE
    )
    outer = plan_site(settings, **WHOLE)
    inner = plan_local(settings.local, delta=1e-5, noise="system", local_steps=1, releases=4, dimension=3, records=200)
    told = claim_of("clinic-a", ledger_with(tmp_path, inner, outer), 1e-5).sentences()
    assert "differential privacy for one site" in told[0]
    assert told[2].startswith("Training records: (")
    assert told[2].endswith("besides, against everyone outside the site: the server, the other sites and every user "
                            "of the model; figures of different units are never added.")  # fmt: skip
    other = plan_site(PrivacySettings(mode="M4", colluding=0, **SITE), **WHOLE)
    told = claim_of("clinic-a", ledger_with(tmp_path / "two", outer, other), 1e-5).sentences()
    assert any("added up by a Rényi filter, order" in sentence for sentence in told)


def test_a_ledger_with_both_kinds_of_jobs_claims_nothing_for_the_site(tmp_path):
    whole = plan_site(PrivacySettings(mode="M3", **SITE), **WHOLE)
    single = plan_training(PrivacySettings(**M2), **PLACE)
    told = claim_of("clinic-a", ledger_with(tmp_path, whole, single), 1e-5).sentences()
    assert "for one record (add or remove one), over all 2 releases" in told[0]
    assert "nothing is claimed against the coordinator" in told[1]


@given(st.floats(1e-12, 1e4))
def test_a_claim_states_the_epsilon_that_was_computed_rounded_up(computed):
    """Must not: promise more than was computed, or name a figure of another size, such as 0.001 for 1e-9."""
    stated = float(re.match(r"\(([0-9.e+-]+), ", sampled_claim(computed, 0.1, 40, 1e-5)).group(1))
    assert computed * (1 - 1e-8) <= stated <= computed * 1.0101

"""Holdings: a data set is read once, split for ever, and charged to one ledger whatever its file holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from client.holding import Holdings, ledger_path
from client.keystore import SqliteKeyStore
from client.policy import DataRules, Policy
from client.policy_file import PolicyFile
from client.site import SiteSettings, read_site
from common.config import read
from common.data import Schema
from common.errors import Code, Refusal
from common.identity import Signer
from simulations.datasets import clinics
from simulations.provision import settle
from tests.worlds import scenario, under

SCHEMA = clinics().schema


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> SiteSettings:
    world = settle(scenario("none"), tmp_path_factory.mktemp("holding") / "world")
    return read_site(world.sites[0].settings)


@pytest.fixture
def holdings(site: SiteSettings) -> Iterator[Holdings]:
    made = open_holdings(site)
    yield made
    made.close()


def open_holdings(site: SiteSettings, policy: Policy | None = None) -> Holdings:
    signer = Signer.load(Path(site.state) / "identity")
    file = PolicyFile(Path(site.policy)) if policy is None else under(policy)
    return Holdings(site, file, signer, SqliteKeyStore.volatile(signer))


def test_the_parts_are_disjoint_whole_and_the_same_after_a_restart(site: SiteSettings, holdings: Holdings) -> None:
    held = holdings.open("clinics", SCHEMA)
    rows = len(Path(site.dataset("clinics").source.path).read_text().splitlines()) - 1
    assert len(held.train) + len(held.holdout) == rows
    assert not set(held.train.ids) & set(held.holdout.ids)
    holdings.close()
    again = open_holdings(site)
    assert again.open("clinics", SCHEMA).train.ids == held.train.ids
    again.close()


def test_a_data_set_is_opened_once_for_a_schema_and_never_printed(holdings: Holdings) -> None:
    held = holdings.open("clinics", SCHEMA)
    assert holdings.open("clinics", SCHEMA) is held
    assert repr(held) == "Holding"


def test_another_schema_does_not_move_a_record_to_the_other_part(holdings: Holdings) -> None:
    """Else a job that asks for fewer columns could train on what another job holds out."""
    fewer = Schema(features=SCHEMA.features[:3], label=SCHEMA.label)
    assert holdings.open("clinics", fewer).train.ids == holdings.open("clinics", SCHEMA).train.ids


def test_a_guard_and_a_ledger_need_no_record(site: SiteSettings, tmp_path: Path) -> None:
    held = site.data[0]
    away = replace(site, data=(replace(held, source=replace(held.source, path=str(tmp_path / "none.csv"))),))
    holdings = open_holdings(away)
    assert holdings.guard("clinics").spent.gated == 0.0
    with pytest.raises(Refusal) as refused:
        holdings.open("clinics", SCHEMA)
    assert refused.value.code is Code.FILE_MISSING
    holdings.close()


def test_a_ledger_belongs_to_a_data_set_s_name_whatever_its_file_holds(site: SiteSettings, tmp_path: Path) -> None:
    held = site.data[0]
    shorter = tmp_path / "data.csv"
    shorter.write_text("".join(Path(held.source.path).read_text().splitlines(keepends=True)[:80]))
    holdings = open_holdings(site)
    head = holdings.ledger("clinics").head
    holdings.close()
    changed = open_holdings(replace(site, data=(replace(held, source=replace(held.source, path=str(shorter))),)))
    assert len(changed.open("clinics", SCHEMA).train) < 80
    assert changed.ledger("clinics").head == head
    changed.close()
    assert ledger_path(site, held).exists()


def test_a_ledger_in_use_is_not_opened_twice(site: SiteSettings, holdings: Holdings) -> None:
    holdings.ledger("clinics")
    with pytest.raises(Refusal) as refused:
        open_holdings(site).ledger("clinics")
    assert refused.value.code is Code.LEDGER_LOCKED


def test_too_few_records_are_refused_without_saying_how_many(site: SiteSettings) -> None:
    policy = read(Policy, Path(site.policy))
    holdings = open_holdings(
        site, replace(policy, data=DataRules(datasets=("clinics",), columns=("*",), min_records=5000))
    )
    with pytest.raises(Refusal, match="fewer training records than the 5000") as refused:
        holdings.open("clinics", SCHEMA)
    assert refused.value.code is Code.COHORT_TOO_SMALL
    holdings.close()


def test_a_data_set_that_the_site_does_not_name_is_refused(holdings: Holdings) -> None:
    for opened in (holdings.ledger, holdings.guard):
        with pytest.raises(Refusal) as refused:
            opened("digits")
        assert refused.value.code is Code.POLICY_DATA


def test_without_its_split_key_nothing_is_opened(site: SiteSettings, tmp_path: Path) -> None:
    signer = Signer.generate()
    with pytest.raises(Refusal, match=r"split\.key") as refused:
        Holdings(replace(site, state=str(tmp_path)), under(Policy()), signer, SqliteKeyStore.volatile(signer))
    assert refused.value.code is Code.FILE_MISSING

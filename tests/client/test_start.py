"""What a keeper is told before processes start: the source, its columns, the address, the manifest."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from client.site import read_site
from client.start import check_site
from common.config import read_table
from common.errors import Code, Refusal
from tests.worlds import Desk, close, desk_of, scenario


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = desk_of(scenario("M2"), tmp_path_factory.mktemp("start") / "world")
    close(made)
    return made


def settings_with(desk: Desk, **source: Any) -> Path:
    """site.toml with other settings of its source, beside the real one."""
    site = desk.federation.sites[0]
    table = read_table(site.settings)
    table["data"][0]["source"] |= source
    path = site.root / "changed.toml"
    path.write_text(tomli_w.dumps(table))
    return path


def test_a_site_as_it_was_set_up_may_start(desk: Desk) -> None:
    assert check_site(read_site(desk.federation.sites[0].settings)) == desk.federation.manifest.digest


@pytest.mark.parametrize(
    ("source", "code", "says"),
    [
        ({"kind": "tabel"}, Code.CONFIG_INVALID, "the nearest is 'table'"),
        ({"path": "nowhere.csv"}, Code.FILE_MISSING, "nowhere.csv is not there"),
        ({"path": "state"}, Code.FILE_MISSING, "is no file"),
        ({"id": "patient"}, Code.CONFIG_INVALID, "columns of .* bears that name"),
        ({"id": "patient", "columns": ["a", "b"]}, Code.CONFIG_INVALID, "none of the 2 columns"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(desk: Desk, source: dict[str, Any], code: Code, says: str) -> None:
    with pytest.raises(Refusal, match=says) as refused:
        check_site(read_site(settings_with(desk, **source)))
    assert refused.value.code is code


def test_the_names_of_columns_are_found_and_never_told(desk: Desk) -> None:
    """Must not: print the first line; in a file without a header it is a record."""
    site = desk.federation.sites[0]
    (site.root / "packed.csv.gz").write_bytes(gzip.compress(b'"patient", secret,x\n1,2,3\n'))
    check_site(read_site(settings_with(desk, path="packed.csv.gz", id="patient")))
    with pytest.raises(Refusal) as refused:
        check_site(read_site(settings_with(desk, path="packed.csv.gz", id="patients")))
    assert "secret" not in str(refused.value)
    (site.root / "torn.csv.gz").write_bytes(b"\x1f\x8b\xff\xff")
    with pytest.raises(Refusal) as refused:
        check_site(read_site(settings_with(desk, path="torn.csv.gz", id="patient")))
    assert refused.value.code is Code.DATA_INVALID


def test_a_governance_key_that_is_none_is_refused(desk: Desk) -> None:
    site = desk.federation.sites[0]
    table = read_table(site.settings)
    table["federation"]["governance"] = "not hex"
    (site.root / "keyless.toml").write_text(tomli_w.dumps(table))
    with pytest.raises(Refusal, match="no key in hex"):
        check_site(read_site(site.root / "keyless.toml"))

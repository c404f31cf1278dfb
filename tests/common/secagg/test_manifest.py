"""The manifest: signed by governance, read strictly, with rules that can be kept."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import canonical
from common.errors import Code, Refusal
from common.secagg import Rules, parse_manifest, read_manifest, sealed, write_manifest
from tests.secagg_federation import RULES, entry, manifest_of, signer

GOVERNANCE = signer("governance")


def refused(code: Code):
    return pytest.raises(Refusal, check=lambda error: error.code is code)


def signed(table) -> bytes:
    """Any table under a good signature: governance may err too."""
    body = canonical(table)
    signature = GOVERNANCE.sign(b"hushfed/manifest/v1\0", body)
    return canonical({"manifest": table, "signature": signature.hex()}) + b"\n"


def table_of(manifest):
    return json.loads(sealed(manifest, GOVERNANCE))["manifest"]


def test_a_signed_manifest_is_read_back(tmp_path):
    manifest = manifest_of(5)
    write_manifest(tmp_path / "manifest.json", manifest, GOVERNANCE)
    again = read_manifest(tmp_path / "manifest.json", GOVERNANCE.public)
    assert again == manifest
    assert again.digest == manifest.digest
    assert signer(3).public.hex() in (tmp_path / "manifest.json").read_text()


def test_its_digest_depends_on_every_part():
    manifest = manifest_of(4)
    others = [
        replace(manifest, version=2),
        replace(manifest, federation="other"),
        replace(manifest, coordinator=signer("x").public),
        replace(manifest, unmaskers=(1, 2, 3)),
        replace(manifest, rules=replace(RULES, quorum_min=3)),
        replace(manifest, sites=(*manifest.sites[:3], replace(manifest.sites[3], nominal_records=101))),
    ]
    assert len({manifest.digest, *(other.digest for other in others)}) == 7


def test_another_key_than_governances_is_refused():
    with refused(Code.E_SIG):
        parse_manifest(sealed(manifest_of(3), signer("coordinator")), GOVERNANCE.public)


@given(st.data())
def test_a_file_changed_anywhere_is_refused(data):
    file = bytearray(sealed(manifest_of(3), GOVERNANCE))
    place = data.draw(st.integers(0, len(file) - 1))
    file[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(Refusal) as caught:
        parse_manifest(bytes(file), GOVERNANCE.public)
    assert caught.value.code in (Code.E_MANIFEST, Code.E_SIG)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_manifest_are_refused(data):
    with refused(Code.E_MANIFEST):
        parse_manifest(data, GOVERNANCE.public)


def test_a_second_spelling_of_the_same_manifest_is_refused():
    file = sealed(manifest_of(3), GOVERNANCE)
    for other in (file.strip(), file + b" ", b" " + file, json.dumps(json.loads(file), indent=1).encode()):
        with refused(Code.E_MANIFEST):
            parse_manifest(other, GOVERNANCE.public)


SPOILED = [
    lambda table: table | {"threshold": 2},
    lambda table: {key: value for key, value in table.items() if key != "rules"},
    lambda table: table | {"version": "1"},
    lambda table: table | {"version": True},
    lambda table: table | {"coordinator": "zz"},
    lambda table: table | {"coordinator": table["coordinator"].upper()},
    lambda table: table | {"sites": {}},
    lambda table: table | {"sites": [1]},
    lambda table: table | {"sites": table["sites"][::-1]},
    lambda table: table | {"unmaskers": [1, 1]},
    lambda table: table | {"rules": table["rules"] | {"lost_max": 1}},
    lambda table: table | {"rules": table["rules"] | {"shares_min": 0}},
    lambda table: table | {"rules": table["rules"] | {"shares_min": 2}},
    lambda table: table | {"rules": table["rules"] | {"suite": 3}},
]


@pytest.mark.parametrize("spoil", SPOILED)
def test_a_signature_does_not_excuse_a_malformed_manifest(spoil):
    table = table_of(manifest_of(3))
    assert parse_manifest(signed(table), GOVERNANCE.public)
    with refused(Code.E_MANIFEST):
        parse_manifest(signed(spoil(table)), GOVERNANCE.public)


def test_a_missing_file_is_refused(tmp_path):
    with refused(Code.FILE_MISSING):
        read_manifest(tmp_path / "manifest.json", GOVERNANCE.public)


RULES_THAT_CANNOT_BE_KEPT = [
    {"unmaskers_min": 1},
    {"unmaskers_min": 3, "corrupt_max": 3},
    {"unmaskers_min": 2, "corrupt_max": 2},
    {"quorum_min": 1},
    {"quorum_min": 17},
    {"orgs_min": 0},
    {"orgs_min": 3},
    {"sites_max": 1},
    {"overlap_min": -1},
    {"lost_max": 1},
    {"lost_max": -1},
    {"shares_min": 2},
    {"rounds_max": 0},
    {"rounds_max": 1025},
]


@pytest.mark.parametrize("change", RULES_THAT_CANNOT_BE_KEPT)
def test_rules_that_protect_nobody_are_refused(change):
    with refused(Code.E_MANIFEST):
        Rules(
            **(
                {
                    "unmaskers_min": 2,
                    "quorum_min": 2,
                    "orgs_min": 1,
                    "sites_max": 16,
                    "corrupt_max": 1,
                    "overlap_min": 1,
                }
                | change
            )
        )


@pytest.mark.parametrize(
    "change", [{"quorum_min": 5}, {"orgs_min": 5, "quorum_min": 5}, {"sites_max": 3}, {"unmaskers_min": 5}]
)
def test_rules_that_four_sites_cannot_keep_are_refused(change):
    with refused(Code.E_MANIFEST):
        manifest_of(4, replace(RULES, **change))


def test_organisations_are_counted_once():
    with refused(Code.E_MANIFEST):
        manifest_of(3, replace(RULES, orgs_min=2), orgs={1: "trust", 2: "trust", 3: "trust"})
    manifest = manifest_of(3, replace(RULES, orgs_min=2), orgs={1: "trust", 2: "trust"})
    assert manifest.orgs([1, 2]) == {"trust"}


@pytest.mark.parametrize(
    "change", [{"name": "clinic-2"}, {"identity": signer(2).public}, {"node": entry(2).node}, {"id": 2}]
)
def test_sites_that_share_what_must_be_their_own_are_refused(change):
    manifest = manifest_of(3)
    with refused(Code.E_MANIFEST):
        replace(manifest, sites=(replace(manifest.sites[0], **change), *manifest.sites[1:]))


@pytest.mark.parametrize(
    "change",
    [{"id": 0}, {"id": 2**63}, {"name": " "}, {"identity": b"short"}, {"node": "one-word"}, {"nominal_records": 0}],
)
def test_sites_that_cannot_be_are_refused(change):
    with refused(Code.E_MANIFEST):
        replace(entry(1), **change)


def test_who_is_not_named_is_not_found():
    manifest = manifest_of(3)
    assert manifest.site_of(signer(2).public).id == 2
    for look in (lambda: manifest.site(9), lambda: manifest.site_of(signer(9).public), lambda: manifest.orgs([1, 9])):
        with refused(Code.E_MANIFEST):
            look()

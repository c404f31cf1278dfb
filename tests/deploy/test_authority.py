"""Keys and certificates of a federation: usable, narrow, secret on disk, never overwritten."""

from __future__ import annotations

import datetime
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key, load_ssh_public_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from common.errors import Code, Refusal
from deploy.authority import (
    LOCAL_NAMES,
    Authority,
    ServerFiles,
    found_authority,
    issue_server,
    make_node_key,
    make_shared_secret,
    read_node_key,
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return found_authority(tmp_path / "authority", "clinics")


@pytest.fixture
def server(tmp_path: Path, authority: Authority) -> ServerFiles:
    return issue_server(tmp_path / "server", authority, LOCAL_NAMES, days=30)


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def handshake(server: ServerFiles, ca: Path, name: str) -> None:
    """A TLS handshake in memory; raises what the client would see."""
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(server.certificate, server.key)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cafile=str(ca)).wrap_bio(to_client, to_server, server_hostname=name)
    other = listening.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for end in (client, other):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_an_authority_signs_certificates_and_nothing_else(authority: Authority):
    issued = certificate(authority.certificate)
    usage = issued.extensions.get_extension_for_class(x509.KeyUsage)
    basic = issued.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert isinstance(key := issued.public_key(), ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"


def test_a_server_certificate_speaks_for_its_names_for_its_days(server: ServerFiles):
    issued = certificate(server.certificate)
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    lasts = issued.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=29) < lasts <= datetime.timedelta(days=30)


@pytest.mark.parametrize("name", LOCAL_NAMES)
def test_a_site_with_the_right_authority_trusts_the_server(server: ServerFiles, name: str):
    handshake(server, server.ca, name)


def test_another_name_or_another_authority_is_not_trusted(server: ServerFiles, tmp_path: Path):
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(server, server.ca, "elsewhere.example")
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        handshake(server, found_authority(tmp_path / "other", "others").certificate, "localhost")


def test_secrets_are_read_by_their_owner_only(authority: Authority, server: ServerFiles, tmp_path: Path):
    node = make_node_key(tmp_path / "site" / "node.key")
    shared = make_shared_secret(tmp_path / "server" / "executor.secret")
    assert {mode(path) for path in (authority.key, server.key, node.private, shared)} == {0o600}
    assert {mode(path.parent) for path in (authority.key, server.key, node.private)} == {0o700}
    assert len(shared.read_bytes()) == 32
    printed = f"{authority} {server} {node}"
    assert not any(path.name in printed for path in (authority.key, server.key, node.private))


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path):
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o750)
    shared.chmod(0o750)
    make_node_key(shared / "node.key")
    assert mode(shared) == 0o750


def test_nothing_is_ever_overwritten(authority: Authority, server: ServerFiles, tmp_path: Path):
    """Must: refuse before anything is written. Must not: touch the files that are there."""
    node = make_node_key(tmp_path / "node.key")
    before = {path: path.read_bytes() for path in (authority.key, server.key, node.private)}
    for again in (
        lambda: found_authority(tmp_path / "authority", "clinics"),
        lambda: issue_server(tmp_path / "server", authority, LOCAL_NAMES),
        lambda: make_node_key(node.private),
    ):
        with pytest.raises(Refusal) as refused:
            again()
        assert refused.value.code is Code.FILE_EXISTS
    assert {path: path.read_bytes() for path in before} == before


def test_of_two_who_make_one_key_at_once_one_is_refused(tmp_path: Path):
    path, outcomes = tmp_path / "node.key", []

    def make() -> None:
        try:
            outcomes.append(make_node_key(path).openssh)
        except Refusal as refusal:
            outcomes.append(refusal.code)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(Code.FILE_EXISTS) == 3
    assert read_node_key(path).openssh in outcomes


def test_a_node_key_is_read_back_as_it_was_made(tmp_path: Path):
    made = make_node_key(tmp_path / "node.key")
    assert read_node_key(made.private) == made
    pem, text = load_pem_public_key(made.public), load_ssh_public_key(made.openssh.encode())
    assert pem == text
    assert made.openssh.startswith("ecdsa-sha2-nistp384 ")


def test_what_is_no_node_key_is_refused(tmp_path: Path, server: ServerFiles):
    (tmp_path / "noise").write_bytes(b"noise")
    for path, code in (
        (tmp_path / "noise", Code.DATA_INVALID),
        (server.key, Code.DATA_INVALID),
        (tmp_path / "none", Code.FILE_MISSING),
    ):
        with pytest.raises(Refusal) as refused:
            read_node_key(path)
        assert refused.value.code is code


def test_a_server_needs_a_name_a_day_and_an_authority(authority: Authority, tmp_path: Path):
    missing = Authority(certificate=tmp_path / "ca.crt", key=tmp_path / "ca.key")
    for names, days, who, code in (
        ((), 1, authority, Code.CONFIG_INVALID),
        (LOCAL_NAMES, 0, authority, Code.CONFIG_INVALID),
        (LOCAL_NAMES, 1, missing, Code.FILE_MISSING),
    ):
        with pytest.raises(Refusal) as refused:
            issue_server(tmp_path / "server", who, names, days)
        assert refused.value.code is code
    assert not (tmp_path / "server" / "server.key").exists()

"""The secrets of a federation: its certificate authority, its server certificate, a node key for each site."""

from __future__ import annotations

import datetime
import ipaddress
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import Code, Refusal

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397  # browsers and auditors refuse longer ones
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
_BACKDATED = datetime.timedelta(minutes=5)  # the clock of a site may be a little behind


@dataclass(frozen=True, kw_only=True)
class Authority:
    """The certificate authority that the sites of one federation trust, and no other. The key stays on its host."""

    certificate: Path
    key: Path = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ServerFiles:
    """What the coordination server needs to speak TLS. `ca` is the public certificate that sites are given."""

    certificate: Path
    key: Path = field(repr=False)
    ca: Path


@dataclass(frozen=True, kw_only=True)
class NodeKey:
    """The key that admits one site to the server. It signs time stamps; it never signs an order or a report.

    private  file in OpenSSH form, mode 0600
    public   PEM, as the server stores it
    openssh  the same public key in OpenSSH text form, as the manifest names it
    """

    private: Path = field(repr=False)
    public: bytes
    openssh: str


def found_authority(folder: Path, federation: str, days: int = AUTHORITY_DAYS) -> Authority:
    """Make the authority of `federation` under `folder`: ca.crt and ca.key (EC P-384).

    Errors: Refusal FILE_EXISTS; nothing is ever overwritten.
    """
    authority = Authority(certificate=folder / "ca.crt", key=folder / "ca.key")
    refuse_to_overwrite(authority.certificate, authority.key)
    key = ec.generate_private_key(ec.SECP384R1())
    name = _name(f"{federation} authority")
    certificate = (
        _certificate(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    write_secret(authority.key, _pem(key))
    _write_public(authority.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    return authority


def issue_server(folder: Path, authority: Authority, names: Sequence[str], days: int = SERVER_DAYS) -> ServerFiles:
    """Make server.crt and server.key under `folder`, valid for the host names and IP addresses in `names`.

    Errors: Refusal FILE_EXISTS, FILE_MISSING (no authority), CONFIG_INVALID (no name, or no whole day).
    """
    files = ServerFiles(certificate=folder / "server.crt", key=folder / "server.key", ca=authority.certificate)
    refuse_to_overwrite(files.certificate, files.key)
    if not names or days < 1:
        raise Refusal(
            Code.CONFIG_INVALID,
            "Server certificate not issued",
            "it needs a host name and at least a day",
            "Give the name that sites will connect to",
        )
    signer, issuer = _read_authority(authority)
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = (
        _certificate(_name(names[0]), issuer.subject, key.public_key(), days)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA384())
    )
    write_secret(files.key, _pem(key))
    _write_public(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    return files


def make_node_key(path: Path) -> NodeKey:
    """Make the node key of one site (EC P-384, OpenSSH form, the only kind the server accepts) at `path`.

    Errors: Refusal FILE_EXISTS.
    """
    refuse_to_overwrite(path)
    key = ec.generate_private_key(ec.SECP384R1())
    form = serialization.PrivateFormat.OpenSSH
    write_secret(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return _node_key(path, key.public_key())


def read_node_key(path: Path) -> NodeKey:
    """The node key at `path`. Errors: Refusal FILE_MISSING, DATA_INVALID (no EC key in OpenSSH form)."""
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), None)
    except OSError as error:
        raise Refusal(
            Code.FILE_MISSING, f"{path} not read", str(error.strerror), "Make the site's node key first"
        ) from None
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refusal(Code.DATA_INVALID, f"{path} not read", "it is no EC key in OpenSSH form", "Make a new node key")
    return _node_key(path, key.public_key())


def make_shared_secret(path: Path) -> Path:
    """Make the secret that lets our own executor, and no other local process, fetch runs: 32 random bytes, 0600."""
    refuse_to_overwrite(path)
    write_secret(path, secrets.token_bytes(32))
    return path


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner reads (0600; a folder made for it is 0700). Refuses FILE_EXISTS."""
    _make_folder(path.parent)
    _write_new(path, content, 0o600)


def refuse_to_overwrite(*paths: Path) -> None:
    """Refusal FILE_EXISTS if one of `paths` is there, before anything is written."""
    for path in paths:
        if path.exists():
            raise Refusal(
                Code.FILE_EXISTS,
                f"{path} not written",
                "it is there, and a lost key cannot be made again",
                "Move it away",
            )


def _write_public(path: Path, content: bytes) -> None:
    _make_folder(path.parent)
    _write_new(path, content, 0o644)


def _make_folder(folder: Path) -> None:
    """Make `folder` and what lacks above it, each 0700. A folder that is there keeps its mode."""
    for part in [*reversed(folder.parents), folder]:
        part.mkdir(mode=0o700, exist_ok=True)


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    except FileExistsError:
        refuse_to_overwrite(path)
        raise
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _read_authority(authority: Authority) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        key = serialization.load_pem_private_key(authority.key.read_bytes(), None)
        certificate = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    except FileNotFoundError as error:
        raise Refusal(
            Code.FILE_MISSING, f"{error.filename} not read", "it is not there", "Found the authority first"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refusal(Code.DATA_INVALID, f"{authority.key} not read", "it is no EC key", "Found a new authority")
    return key, certificate


def _certificate(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    """An authority signs certificates and revocations; a server signs handshakes; nothing else is allowed."""
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def _node_key(path: Path, key: ec.EllipticCurvePublicKey) -> NodeKey:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return NodeKey(private=path, public=pem, openssh=text.decode())

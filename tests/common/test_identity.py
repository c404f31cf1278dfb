"""Identities: what was signed verifies, anything else does not, and the key stays where it is."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Code, Refusal
from common.identity import Signer, verify

SIGNER = Signer.from_seed(bytes(range(32)))


def refused(public: bytes, signature: bytes, context: bytes, *parts: bytes) -> str:
    with pytest.raises(Refusal) as found:
        verify(public, signature, context, *parts)
    assert found.value.code is Code.E_SIG
    return str(found.value)


def test_the_signature_is_ed25519() -> None:
    """RFC 8032, section 7.1, test 1."""
    signer = Signer.from_seed(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
    assert signer.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert signer.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


def test_what_was_signed_verifies_and_every_fault_looks_the_same() -> None:
    signature = SIGNER.sign(b"context\0", b"one", b"two")
    verify(SIGNER.public, signature, b"context\0", b"one", b"two")
    faults = {
        refused(SIGNER.public, signature, b"other\0", b"one", b"two"),
        refused(SIGNER.public, signature, b"context\0", b"one", b"twO"),
        refused(Signer.generate().public, signature, b"context\0", b"one", b"two"),
        refused(b"short", signature, b"context\0", b"one", b"two"),
        refused(SIGNER.public, signature[:-1], b"context\0", b"one", b"two"),
        refused(bytes(32), bytes(64), b"context\0"),
    }
    assert len(faults) == 1


@given(st.integers(0, 511), st.binary(max_size=32))
def test_a_flipped_bit_of_a_signature_is_refused(bit: int, message: bytes) -> None:
    signature = bytearray(SIGNER.sign(b"c", message))
    signature[bit // 8] ^= 1 << bit % 8
    refused(SIGNER.public, bytes(signature), b"c", message)


def test_a_key_is_stored_for_its_owner_only_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    SIGNER.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Signer.load(path).public == SIGNER.public
    with pytest.raises(Refusal) as found:
        Signer.generate().save(path)
    assert found.value.code is Code.FILE_EXISTS
    assert Signer.load(path).public == SIGNER.public


def test_a_missing_or_damaged_key_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal) as found:
        Signer.load(tmp_path / "none")
    assert found.value.code is Code.FILE_MISSING
    (tmp_path / "bad").write_bytes(b"31 bytes")
    with pytest.raises(Refusal) as found:
        Signer.load(tmp_path / "bad")
    assert found.value.code is Code.CONFIG_INVALID


def test_a_key_is_neither_printed_nor_copied() -> None:
    assert SIGNER.public.hex()[:16] in repr(SIGNER)
    assert bytes(range(32)).hex() not in repr(SIGNER)
    for copied in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            copied(SIGNER)

"""The link's frames, keys and imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from flwr.app import ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from hypothesis import given
from hypothesis import strategies as st

from client.carrier import Lost, NotAdmitted, Unwanted
from client.link import SMALL, _over, _refused, _translated, connect, main, pack, unpack
from common.errors import Code, Refusal


def carried(content: RecordDict) -> RecordDict:
    """`content` as it arrives after Flower took it apart and put it together."""
    parts = {number: part.deflate() for number, part in get_all_nested_objects(content).items()}
    arrived = inflate_object_from_contents(content.object_id, parts)
    assert isinstance(arrived, RecordDict)
    return arrived


@given(st.binary(max_size=2000))
def test_a_frame_survives_the_journey(frame: bytes):
    assert unpack(carried(pack(frame))) == frame


@pytest.mark.parametrize("size", [0, 1, SMALL, SMALL + 1, 11 * 2**20])
def test_frames_of_every_size_survive(size: int):
    frame = bytes(i % 251 for i in range(min(size, 1000))) * (size // 1000 + 1)
    assert unpack(carried(pack(frame[:size]))) == frame[:size]


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"frame": ConfigRecord({"frame": "text"})}),
        RecordDict({"frame": ConfigRecord({"other": b""})}),
        RecordDict({"other": ConfigRecord({"frame": b""})}),
        RecordDict({"frame": ConfigRecord({"frame": [b"a", b"b"]})}),
    ],
)
def test_what_carries_no_frame_is_refused(content: RecordDict):
    with pytest.raises(Refusal) as refused:
        unpack(content)
    assert refused.value.code is Code.MESSAGE_INVALID


def test_a_link_loads_no_learning_library():
    """Must not: import what the process with the network has no use for."""
    code = "import sys, client.link; print([m for m in ('torch', 'opacus', 'pandas', 'ray') if m in sys.modules])"
    root = Path(__file__).parents[2]
    found = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def answer(status: int, text: str = "") -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://x/")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, text=text, request=request))


FLOWER_SAYS = '{"code": 2001, "detail": "Run is not running."}'


@pytest.mark.parametrize(
    ("error", "becomes"),
    [
        (answer(401), NotAdmitted),
        (answer(500), Lost),
        (answer(404), Lost),
        (answer(502, "<html>"), Lost),
        (answer(412, FLOWER_SAYS), Unwanted),
        (answer(500, FLOWER_SAYS), Lost),
        (httpx.ConnectError("refused"), Lost),
        (httpx.ReadTimeout("slow"), Lost),
        (ValueError("Invalid protobuf response payload"), Lost),
    ],
)
def test_every_answer_has_one_meaning(error: Exception, becomes: type[Exception]):
    with pytest.raises(becomes), _translated(), _refused(401), _over():
        raise error


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> None:
    form = serialization.PrivateFormat.OpenSSH
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def test_keys_that_cannot_be_used_are_refused(tmp_path: Path):
    good, other, torn = tmp_path / "good", tmp_path / "other", tmp_path / "torn"
    write_key(good, ec.generate_private_key(ec.SECP384R1()))
    write_key(other, ed25519.Ed25519PrivateKey.generate())
    torn.write_bytes(b"torn")
    for ca, key, code in (
        (tmp_path / "none", good, Code.FILE_MISSING),
        (torn, good, Code.DATA_INVALID),
        (torn, torn, Code.DATA_INVALID),
        (torn, tmp_path / "none", Code.FILE_MISSING),
    ):
        with pytest.raises(Refusal) as refused:
            connect("127.0.0.1:1", ca, key)
        assert refused.value.code is code


def test_a_link_without_keys_ends_with_the_code_of_a_refusal(tmp_path: Path):
    words = ["--superlink", "127.0.0.1:1", "--ca", "x", "--key", "y", "--agent", "z", "--state", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 3

"""HOST:PORT: what is one, and what is only for this machine."""

from __future__ import annotations

import pytest

from common.addresses import checked_address, checked_loopback
from common.errors import Refusal


@pytest.mark.parametrize("text", ["a.example:1", "127.0.0.1:8443", "[::1]:65535", "localhost:80"])
def test_an_address_is_taken_as_it_is(text: str) -> None:
    assert checked_address(text, "--public") == text


WRONG = """:|host|host:|:80|host:0|host:65536|host:8x|host:-1|ho st:80|https://a:1|::1:80|a:1\n|a:1/x|user@a:1|a:٣|"""


@pytest.mark.parametrize("text", WRONG.split("|"))
def test_anything_else_is_refused_with_the_name_of_the_option(text: str) -> None:
    with pytest.raises(Refusal, match=r"--public .*HOST:PORT"):
        checked_address(text, "--public")


def test_operators_listen_on_loopback_alone() -> None:
    for text in ("127.0.0.1:1", "[::1]:1", "localhost:1"):
        assert checked_loopback(text, "--private") == text
    for text in ("0.0.0.0:1", "10.0.0.1:1", "host:1"):
        with pytest.raises(Refusal, match="without a password"):
            checked_loopback(text, "--private")

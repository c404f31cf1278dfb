"""An address that a server cannot have is refused before anything starts, with who has it."""

from __future__ import annotations

import os
import socket

import pytest

from common.errors import Code, Refusal
from deploy.ports import refuse_taken
from deploy.up import free_address


def test_a_port_that_is_taken_is_refused_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Refusal) as refused:
            refuse_taken(address, "--public")
    assert refused.value.code is Code.ALREADY_RUNNING
    assert refused.value.what == f"--public {address} not used"
    assert f"process {os.getpid()} (" in refused.value.why
    refuse_taken(address, "--public")


def test_a_free_port_is_left_free() -> None:
    address = free_address()
    refuse_taken(address, "--private")
    refuse_taken(address, "--private")


def test_a_host_that_is_another_one_is_no_place_to_listen() -> None:
    with pytest.raises(Refusal) as refused:
        refuse_taken("192.0.2.7:8443", "--public")
    assert refused.value.code is Code.CONFIG_INVALID

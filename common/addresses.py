"""HOST:PORT as people write it."""

from __future__ import annotations

import re

from common.errors import Code, Refusal

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]")


def checked_address(text: str, name: str) -> str:
    """`text` if it is HOST:PORT: a name, an IPv4 address or an IPv6 address in brackets, and a port of 1 to 65535.

    name  of the option or setting, for the message
    Errors: Refusal CONFIG_INVALID.
    """
    host, _, port = text.rpartition(":")
    if not _HOST.fullmatch(host) or not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise Refusal(
            Code.CONFIG_INVALID, f"{name} {text!r}", "it is not of the form HOST:PORT", "Write 192.0.2.7:8443, say"
        )
    return text


def checked_loopback(text: str, name: str) -> str:
    """`text` if it is HOST:PORT on this machine alone. Errors: Refusal CONFIG_INVALID."""
    if checked_address(text, name).rpartition(":")[0].strip("[]") not in LOOPBACK:
        raise Refusal(
            Code.CONFIG_INVALID,
            f"{name} {text!r}",
            "whoever reaches it rules the federation, without a password",
            "Use a loopback address such as 127.0.0.1:8444",
        )
    return text

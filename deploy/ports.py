"""Whether the addresses that a server is asked to listen at are free, and if not, who listens there."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path

from common.errors import Code, Refusal

_LISTENS = "0A"  # state of a socket in /proc/net/tcp, include/net/tcp_states.h


def refuse_taken(address: str, name: str) -> None:
    """Refuse an address HOST:PORT that nobody can listen at now; a moment later it may have changed.

    name  of the option that gave it, for the message
    Errors: Refusal ALREADY_RUNNING if a process listens there, with its id where the system tells it;
    CONFIG_INVALID for a host that is not this one's, or a port that this user may not have.
    """
    host, _, port = address.rpartition(":")
    try:
        places = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, place in places:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server will
                probe.bind(place)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = f"{_listener(int(port))} listens there already"
            do = f"Give {name} another port, or stop that process"
            raise Refusal(Code.ALREADY_RUNNING, f"{name} {address} not used", why, do) from None
        why = (error.strerror or "the system refuses").lower()
        do = f"Give {name} an address of this host and a port above 1023"
        raise Refusal(Code.CONFIG_INVALID, f"{name} {address} not used", why, do) from None


def _listener(port: int) -> str:
    """The process that listens at `port`, as far as this user may know."""
    wanted = {f"socket:[{number}]" for number in _sockets(port)}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            if any(str(handle.readlink()) in wanted for handle in folder.iterdir()):
                return f"process {folder.parent.name} ({(folder.parent / 'comm').read_text().strip()})"
    return "another process"


def _sockets(port: int) -> list[str]:
    """Inode numbers of the sockets that listen at `port`."""
    found = []
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            rows = [line.split() for line in Path("/proc/net", table).read_text().splitlines()[1:]]
            found += [row[9] for row in rows if row[3] == _LISTENS and int(row[1].rpartition(":")[2], 16) == port]
    return found

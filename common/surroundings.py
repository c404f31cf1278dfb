"""What a process of ours is started in: environment, a folder for its socket, no network where it needs none."""

from __future__ import annotations

import functools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import common

SOCKET_PATH_LIMIT = 90  # bytes left for a folder, of the 107 that a socket's path may have
_SOCKETS, _OWNER = "hushfed-", "owner"
_QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5",  # seconds; each poll costs the server 7 ms
    "FLWR_LOG_LEVEL": "WARNING",
    "PYTHONUNBUFFERED": "1",
}


@functools.cache
def network_isolation() -> tuple[str, ...]:
    """The command that takes a process off every network, or nothing where this system does not allow it."""
    for way in (("unshare", "-n", "--"), ("unshare", "-rn", "--")):
        try:
            if subprocess.run([*way, "true"], capture_output=True, check=False).returncode == 0:
                return way
        except OSError:
            break
    return ()


def environment(home: Path) -> dict[str, str]:
    """Flower quiet and alone in its home; our packages and its commands found wherever this was started."""
    roots = [str(Path(common.__file__).resolve().parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    loopback = ",".join(filter(None, ("127.0.0.1", "localhost", os.environ.get("NO_PROXY", ""))))
    return {
        **os.environ,
        **_QUIET,
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath))),
        "PYTHONPATH": os.pathsep.join(str(Path(root).absolute()) for root in roots if root),
        "FLWR_HOME": str(home),
        "NO_PROXY": loopback,
        "no_proxy": loopback,
    }


def socket_folder(folder: Path) -> Path:
    """A folder of mode 0700 whose path leaves room for a socket's name; the caller removes it at its end.

    Those that killed processes of this user left in the same place are removed.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    short = len(os.fsencode(folder)) < SOCKET_PATH_LIMIT - 20
    parent = folder if short else Path(tempfile.gettempdir())
    _sweep(parent)
    made = Path(tempfile.mkdtemp(prefix=_SOCKETS, dir=parent))
    (made / _OWNER).write_text(f"{os.getpid()} {_birth(os.getpid())}")
    return made


def listens(path: Path) -> bool:
    """Whether a process answers at the socket `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _sweep(parent: Path) -> None:
    """Remove socket folders of this user whose owner is dead. One without an owner's note may be in the making."""
    for folder in parent.glob(f"{_SOCKETS}*"):
        with suppress(OSError, ValueError):
            pid, birth = (folder / _OWNER).read_text().split()
            if not folder.is_symlink() and folder.stat().st_uid == os.getuid() and _birth(int(pid)) != birth:
                shutil.rmtree(folder)


def _birth(pid: int) -> str:
    """When the process of this number was started, in the kernel's ticks; "0" if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return "0" if Path("/proc/self").exists() else "?"  # without /proc nobody is called dead


def is_alive(pid: int) -> bool:
    """Whether a process of this number runs."""
    return pid > 0 and _birth(pid) != "0"

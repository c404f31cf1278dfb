"""A site that does one act of secure aggregation on its key store and is killed around the commit of it.

Arguments: folder of the key store, name of the act, file with its pickled arguments, "before" or "after".
"""

from __future__ import annotations

import os
import pickle
import signal
import sqlite3
import sys
from pathlib import Path

from client.keystore import SqliteKeyStore
from client.recovery import deal, keep, release
from client.secagg import enrol, mask, unmask

ACTS = {"enrol": enrol, "deal": deal, "keep": keep, "report": mask, "answer": unmask, "release": release}


class Killed(SqliteKeyStore):
    """A store whose process ends at its first commit: `moment` says on which side of it."""

    moment = ""

    def _commit(self, cursor: sqlite3.Cursor) -> None:
        if self.moment == "after":
            super()._commit(cursor)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, act, arguments, Killed.moment = sys.argv[1:]
    ACTS[act](Killed.open(Path(folder)), *pickle.loads(Path(arguments).read_bytes()))  # our own

"""The agents of a world: sessions in this process that may die in mid-work and are then opened anew on their files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from client.craft import Assignment, Craft, Executed, OwnCraft
from client.session import Session, open_session
from client.trainer import Workbench
from common.data import Records
from common.privacy.clipped import Clipped, PrivateUpdate
from common.privacy.mechanism import MechanismPlan
from common.secagg.codec import Encoded
from deploy.provision import SiteFolder
from simulations.faults import Crash


class Killed(BaseException):
    """The process of a site ends here. No handler of the site may catch it: what is on disk is all that is left."""


class Agents(Mapping[int, Session]):
    """The session of every site, by id; a context manager. One that died is opened again when it is next asked for.

    Opening it is what a restarted agent does: locks, key store and ledgers from their files, interrupted work ended in
    the ledger with its charge, nothing else remembered.
    """

    def __init__(self, sites: Sequence[SiteFolder], craft: Craft | None = None):
        self._settings = {site.id: site.settings for site in sites}
        self._craft = MortalCraft(craft or OwnCraft())
        self._open: dict[int, Session] = {}

    def __enter__(self) -> Agents:
        try:
            for site in self._settings:
                _ = self[site]
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, site: int) -> Session:
        if site not in self._open:
            self._open[site] = open_session(self._settings[site], self._craft, durable=False)
        return self._open[site]

    def __iter__(self) -> Iterator[int]:
        return iter(self._settings)

    def __len__(self) -> int:
        return len(self._settings)

    def handle(self, site: int, frame: bytes) -> bytes:
        """The site's answer to a sealed order."""
        return self[site].handle(frame)

    def die(self, site: int, frame: bytes, crash: Crash) -> bytes | None:
        """Let the site die over this order; its answer, if that had left before.

        Of an order that asks for counts it dies once they are made, with the answer.
        """
        answer = None
        self._craft.crash = None if crash.moment == "reported" else crash
        try:
            with suppress(Killed):
                answer = self[site].handle(frame)
        finally:
            self._craft.crash = None
            self._end(site)
        return answer if crash.moment == "reported" else None

    def close(self) -> None:
        """Let go of the files of all sites."""
        for site in list(self._open):
            self._end(site)

    def _end(self, site: int) -> None:
        if session := self._open.pop(site, None):
            session.close()


class MortalCraft:
    """`Craft` that another one does, until the process is to end at it. crash: how, if it is."""

    def __init__(self, craft: Craft):
        self._craft = craft
        self.crash: Crash | None = None

    def gradients(self, bench: Workbench, train: Records, plan: MechanismPlan, given: Assignment) -> Clipped:
        """See `Craft`."""
        self._begun()
        found = self._craft.gradients(bench, train, plan, given)
        self._done()
        return found

    def privately(
        self, bench: Workbench, train: Records, plan: MechanismPlan, given: Assignment, executed: Executed
    ) -> PrivateUpdate:
        """See `Craft`. It dies between two steps, of which the ledger has heard."""
        last = plan.steps if self.crash is None else int(self.crash.share * plan.steps)

        def told(step: int) -> None:
            executed(step)
            if self.crash and self.crash.moment == "working" and step >= last:
                raise Killed

        found = self._craft.privately(bench, train, plan, given, told)
        self._done()
        return found

    def plainly(self, bench: Workbench, train: Records, given: Assignment) -> NDArray[np.float64]:
        """See `Craft`."""
        self._begun()
        found = self._craft.plainly(bench, train, given)
        self._done()
        return found

    def sent(self, encoded: Encoded, given: Assignment) -> Encoded:
        """See `Craft`."""
        return self._craft.sent(encoded, given)

    def _begun(self) -> None:
        if self.crash and self.crash.moment == "working":
            raise Killed

    def _done(self) -> None:
        if self.crash:
            raise Killed

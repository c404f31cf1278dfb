"""The coordinator's own ledger, in modes where it adds the noise: a charge before each sum is noised, settled after."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.identity import Signer
from common.messages import COORDINATOR
from common.privacy.entries import Facts, Kind
from common.privacy.ledger import Ledger, Owner, new_entry, open_ledger
from common.versions import versions
from common.work import Work
from server.aggregation import Part
from server.checkpoints import State
from server.site_level import site_updates


@dataclass(frozen=True)
class OwnLedger:
    """What this federation's coordinator has released of a data set, over all runs. `ledger`: None if sites add noise.

    Killed at any point it never holds less than was released, as a site's ledger does not either.
    """

    ledger: Ledger | None
    run: bytes

    def updates(
        self, work: Work, parts: Sequence[Part], state: State, number: int
    ) -> tuple[NDArray[np.float64], State]:
        """As `site_updates`, accounted for: on disk before the noise is drawn, and before anything is used."""
        if self.ledger is None:
            return site_updates(work, parts, state, number)
        plan = work.training
        facts = Facts(
            run=self.run.hex(), job=work.job.digest().hex(), round=number, attempt=state.spent.get("train", 0)
        )
        charge = new_entry(
            Kind.RESERVE, facts=facts, partition=plan.partition, plan_id=plan.plan_id, plan=plan, steps=plan.steps
        )
        seq = self.ledger.append(charge).seq
        rows, state = site_updates(work, parts, state, number)
        salt = secrets.token_bytes(32)
        output = hashlib.sha256(salt + rows.tobytes()).hexdigest()
        self.ledger.append(new_entry(Kind.SETTLE, reserve=seq, steps=plan.steps, output=output), salt=salt)
        return rows, state

    def lines(self) -> bytes | None:
        """The public ledger; None where the coordinator adds no noise."""
        return self.ledger.public_lines() if self.ledger else None


@contextlib.contextmanager
def own_ledger(work: Work, run: bytes, folder: Path, signer: Signer) -> Iterator[OwnLedger]:
    """The ledger of the job's data set in the coordinator's folder.

    Errors: Refusal LEDGER_LOCKED if another run holds it, LEDGER_TAMPERED.
    """
    if not work.training.central:
        yield OwnLedger(None, run)
        return
    name = hashlib.sha256(work.job.dataset.encode()).hexdigest()[:32]
    owner = Owner(COORDINATOR, name)
    with open_ledger(folder / f"ledger-{work.job.dataset}.sqlite", owner, signer, versions()) as ledger:
        yield OwnLedger(ledger, run)

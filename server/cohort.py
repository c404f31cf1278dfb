"""Who takes part in a round, and who no longer does."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from common.errors import Code, Refusal

# A site that answers with one of these will not change its mind in this run.
FINAL = frozenset(
    {
        Code.BUDGET_EXHAUSTED,
        Code.COHORT_TOO_SMALL,
        Code.DATA_INVALID,
        Code.E_MANIFEST,
        Code.LEDGER_ROLLED_BACK,
        Code.LEDGER_TAMPERED,
        Code.MODEL_INVALID,
        Code.POLICY_DATA,
        Code.POLICY_MODEL,
        Code.POLICY_PRIVACY,
        Code.POLICY_RELEASE,
        Code.POLICY_SECAGG,
        Code.POLICY_TASK,
    }
)


class Patience:
    """Which sites kept a round waiting. A silent site is left out for 1, 2, 4, … rounds, then asked again."""

    def __init__(self) -> None:
        self._silent: dict[int, int] = {}
        self._pause: dict[int, int] = {}

    def note(self, site: int, *, silent: bool) -> None:
        """Remember whether the site answered."""
        if not silent:
            self._silent.pop(site, None)
            self._pause.pop(site, None)
            return
        self._silent[site] = self._silent.get(site, 0) + 1
        self._pause[site] = min(2 ** (self._silent[site] - 1), 16)

    def asked(self, cohort: Iterable[int], quorum: int) -> tuple[int, ...]:
        """The sites of the cohort to ask now; those that pause come back when the quorum needs them."""
        sites = tuple(cohort)
        ready = tuple(site for site in sites if not self._pause.get(site))
        self._pause = {site: left - 1 for site, left in self._pause.items() if left}
        return ready if len(ready) >= quorum else sites


def choose(present: Collection[int], excluded: Collection[int]) -> tuple[int, ...]:
    """The cohort of a round: every site that is here and has not refused for good, by id.

    All sites take part: record-level guarantees need no sampling of sites, and the server sees who answers.
    """
    return tuple(sorted(set(present) - set(excluded)))


def wait_for(
    quorum: int, present: Callable[[], Collection[int]], excluded: Collection[int], seconds: float, pause: float = 0.2
) -> tuple[int, ...]:
    """The cohort once it reaches the quorum. Errors: Refusal E_TOO_FEW when it has not within `seconds`."""
    end = time.monotonic() + seconds
    while True:
        cohort = choose(present(), excluded)
        if len(cohort) >= quorum:
            return cohort
        if time.monotonic() > end:
            raise Refusal(
                Code.E_TOO_FEW,
                f"Round not started with {len(cohort)} sites",
                f"the quorum is {quorum}, and {len(excluded)} sites have refused",
                "Start more sites, or lower the quorum if every site agrees",
            )
        time.sleep(pause)

"""Who a job may ask: the sites of a signed manifest, or a simulated population that is too large to be written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from common.secagg.rules import Rules


class Listed(Protocol):
    """One site as a roster names it; `nominal_records` is a public, rounded size."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def nominal_records(self) -> int: ...


class Roster(Protocol):
    """The sites of a federation, without walking through all of them.

    ids   ascending      rules  under which sums are opened
    """

    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def rules(self) -> Rules: ...

    @property
    def most_records(self) -> int:
        """The largest nominal number of records of a site."""

    @property
    def all_records(self) -> int:
        """Nominal records of all sites together."""

    def site(self, number: int) -> Listed:
        """The site of this id. Errors: Refusal E_MANIFEST."""

    def smallest_sum(self, quorum: int, colluding: int = 0) -> int:
        """Reports that every opened sum is sure to hold."""

    def told(self) -> Mapping[str, Any]:
        """How a run's record names the sites."""


def names(roster: Roster, sites: Iterable[int]) -> list[str]:
    """The names of these sites, in their order. Errors: Refusal E_MANIFEST."""
    return [roster.site(site).name for site in sites]

"""A roster that is not written down: as many sites as a scenario says, none of which exists before it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from common.errors import Code, Refusal
from common.secagg.rules import Rules
from simulations.ground import Ground
from simulations.resampling import Resampled


@dataclass(frozen=True)
class Resident:
    """One site of a population."""

    id: int
    name: str
    nominal_records: int


@dataclass(frozen=True, eq=False)
class Population:
    """`common.roster.Roster` of a world whose sums are formed without masks, so that nothing has to be signed."""

    ground: Ground
    rules: Rules

    @property
    def ids(self) -> range:
        """1 to the number of sites."""
        return range(1, len(self.ground) + 1)

    @cached_property
    def most_records(self) -> int:
        """See `Roster`."""
        return max(self.ground.nominal(site) for site in self._kinds)

    @cached_property
    def all_records(self) -> int:
        """See `Roster`."""
        return sum(self.ground.nominal(site) for site in self._kinds) * len(self.ids) // len(self._kinds)

    def site(self, number: int) -> Resident:
        """The site of this id. Errors: Refusal E_MANIFEST."""
        if number not in self.ids:
            why = f"the population has {len(self.ids)} sites"
            raise Refusal(Code.E_MANIFEST, f"Site {number}", why, "Ask a site of the world")
        return Resident(number, self.ground.name(number), self.ground.nominal(number))

    def smallest_sum(self, quorum: int, colluding: int = 0) -> int:
        """See `Roster`: nobody lies here about who is in a sum."""
        del colluding
        return quorum

    def told(self) -> dict[str, Any]:
        """How a run's record names the sites: by their number."""
        return {"manifest": None, "population": len(self.ids)}

    @property
    def _kinds(self) -> range:
        """Sites that stand for all: the first one where all are of one size."""
        return self.ids[:1] if isinstance(self.ground.dealt, Resampled) else self.ids

"""The rules of a federation for opening sums, and which of them can live together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from common.errors import Code, Refusal
from common.secagg.regular import CHANCE, exposure, least_masks

ROUNDS_MAX = 1024  # aggregation numbers of one session; their keys travel in one message


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What no coordinator can talk a site out of.

    unmaskers_min  m_min, unmasking sites of a session; an honest one that is not recovered keeps every report masked.
                   0: there are no sessions, and only pairwise masks are left, which may count on more corrupt sites
    quorum_min     s_min, reports in a sum that is opened
    orgs_min       o_min, organisations behind those reports
    sites_max      n_max, reports in a sum; bounds what the ring must hold
    corrupt_max    c_max, sites among all that may unmask that are expected to side with the coordinator
    overlap_min    two sets answered one after the other for a job are equal or differ in this many sites;
                   0 and 1 ask nothing. A heuristic: the defence against differences of sums is noise
    lost_max       f, unmasking sites that may be lost in a round and be recovered from shares that the others keep;
                   0: no shares are made, and the round is lost with the first of them
    shares_min     t_b, shares that rebuild a lost site's key of a number; 0 where lost_max is 0
    rounds_max     E_max, aggregation numbers of one session
    suite          2: X25519 and ML-KEM-768 together; 1: X25519 alone
    masks_each     k, unmasking sites of a session that a report is masked for; 0: for all of them. Fewer cost less, and
                   are for a thousand sites and more: a session then has exactly m_min unmasking sites, each sees only
                   a part of a set, and a lying coordinator can open smaller sums (`regular.py`)

    Source: the trust condition c + f + 1 <= t <= m - f; with f = 0 nothing is shared, and c <= m - 1 is enough. Of h
    honest unmasking sites each releases shares of at most f others, and an honest one's key needs t - c of those, so
    at most h·f / (t - c) < h honest sites are ever recovered: one stays whose masks nobody knows.
    """

    unmaskers_min: int
    quorum_min: int
    orgs_min: int
    sites_max: int
    corrupt_max: int
    overlap_min: int
    lost_max: int = 0
    shares_min: int = 0
    rounds_max: int = 64
    suite: Literal[1, 2] = 2
    masks_each: int = 0

    def __post_init__(self) -> None:
        if self.unmaskers_min:
            why = "one unmasking site and the coordinator read every report"
            _within("unmaskers_min", self.unmaskers_min, 2, 64, why)
        _within("quorum_min", self.quorum_min, 2, self.sites_max, "a sum of one report is that report")
        _within("sites_max", self.sites_max, 2, 2**13, "the narrowest ring must hold their sum")
        _within("orgs_min", self.orgs_min, 1, self.quorum_min, "a sum needs a known number of organisations")
        _within("overlap_min", self.overlap_min, 0, self.sites_max, "sets cannot differ in more sites than there are")
        self._check_trust()
        _within("rounds_max", self.rounds_max, 1, ROUNDS_MAX, "the keys of a session travel in one message")
        if self.masks_each:
            why = "one unmasking site and the coordinator read every report; more than a session has cannot be chosen"
            _within("masks_each", self.masks_each, 2, self.unmaskers_min, why)
            why = "with masks_each no unmasking site sees the whole sets that should differ"
            _within("overlap_min", self.overlap_min, 0, 1, why)

    @property
    def recovered_max(self) -> int:
        """Honest unmasking sites of a session of m_min that can be recovered for one number.

        A coordinator that names other lost sites to each holder may have more of them than f, but no more than
        (m - c) · f / (t - c): so many shares of so many sites are released in all.
        """
        if not self.lost_max:
            return 0
        return (self.unmaskers_min - self.corrupt_max) * self.lost_max // (self.shares_min - self.corrupt_max)

    def reports_each(self, quorum: int) -> int:
        """s_c, reports that an unmasking site must see before it answers, in a sum of at least `quorum` reports.

        With masks_each it sees k / m of a set on average; 0.7 of that leaves room for chance.
        """
        return -(-7 * quorum * self.masks_each // (10 * self.unmaskers_min)) if self.masks_each else quorum

    @property
    def orgs_each(self) -> int:
        """Organisations behind the reports that an unmasking site sees; as `reports_each`, but two if there must be."""
        return max(min(2, self.orgs_min), self.reports_each(self.orgs_min))

    def _check_trust(self) -> None:
        """One honest unmasking site stays, neither corrupt nor recovered; and the others can recover f lost ones.

        Of pairwise masks the shape of the graph says what they can bear (`pairwise/strength.py`).
        """
        if not self.unmaskers_min:
            _within("corrupt_max", self.corrupt_max, 0, self.sites_max - 1, "without an honest site nothing is masked")
            _within("lost_max", self.lost_max, 0, 0, "without unmasking sites none is lost")
            return _within("shares_min", self.shares_min, 0, 0, "without unmasking sites no shares of theirs are made")
        why = "without an honest unmasking site nothing stays masked"
        _within("corrupt_max", self.corrupt_max, 0, self.unmaskers_min - 1, why)
        least, most = self.corrupt_max + self.lost_max + 1, self.unmaskers_min - self.lost_max
        if not self.lost_max:
            return _within("shares_min", self.shares_min, 0, 0, "with lost_max = 0 no shares are made")
        _within("lost_max", self.lost_max, 0, self.unmaskers_min - 1, "the others must recover those that are lost")
        if least > most:
            enough = self.corrupt_max + 2 * self.lost_max + 1
            do = f"Choose unmaskers_min of at least {enough}, or fewer that may be lost or be corrupt"
            why = f"{self.unmaskers_min} unmasking sites cannot spare it with {self.corrupt_max} of them corrupt"
            raise refused(f"lost_max = {self.lost_max}", why, do)
        why = "fewer shares would let corrupt sites open reports, more could not be had from the sites that are left"
        return _within("shares_min", self.shares_min, least, most, why)

    def check(self, sites: int, orgs: int, unmaskers: int) -> None:
        """Refuse rules that this many sites, organisations and unmasking sites cannot keep. Errors: E_MANIFEST."""
        _within("sites_max", self.sites_max, sites, 2**13, "the manifest names more sites")
        _within("quorum_min", self.quorum_min, 2, sites, "the manifest names fewer sites")
        _within("orgs_min", self.orgs_min, 1, orgs, "the manifest names fewer organisations")
        if not self.unmaskers_min:
            return _within("corrupt_max", self.corrupt_max, 0, sites - 1, "the manifest names fewer sites")
        _within("unmaskers_min", self.unmaskers_min, 2, unmaskers, "the manifest names fewer unmasking sites")
        _within("the number of sites that may unmask", unmaskers, 2, 4096, "this is more than a session needs")
        return self._check_exposure(sites, unmaskers) if self.masks_each else None

    def _check_exposure(self, sites: int, unmaskers: int) -> None:
        """Some honest unmasking site for every site, whichever of them a session leaves out or recovers."""
        corrupt, away, lost = self.corrupt_max, unmaskers - self.unmaskers_min, self.recovered_max
        chance = exposure(
            sites=sites, unmaskers=unmaskers, corrupt=corrupt, masks=self.masks_each, away=away, recovered=lost
        )
        if chance <= CHANCE:
            return
        enough = least_masks(sites=sites, unmaskers=unmaskers, corrupt=corrupt, away=away, recovered=lost)
        raise refused(
            f"masks_each = {self.masks_each}",
            f"with chance {float(chance):.1e} one of {sites} sites would mask for none that is honest, present and not "
            f"recovered",
            f"Choose at least {enough}, or let fewer of {unmaskers} unmasking sites be corrupt, absent or lost",
        )


def refused(what: str, why: str, do: str) -> Refusal:
    """A refusal E_MANIFEST."""
    return Refusal(Code.E_MANIFEST, f"{what} refused", why, do)


def _within(name: str, value: int, least: int, most: int, why: str) -> None:
    if isinstance(value, bool) or not least <= value <= most:
        raise refused(f"{name} = {value}", why, f"Choose {least}" if least == most else f"Choose {least} to {most}")

"""Shares of round seeds between the unmasking sites of a session, through the coordinator, which can open none."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from common.errors import Code, Refusal
from common.secagg.parcels import verify_parcel
from common.secagg.wire import BoxKey, Parcel
from server.enrolment import Opening


@dataclass(frozen=True)
class Dealing:
    """The coordinator waits for parcels of all unmasking sites, then for word that each keeps those meant for it.

    disputed  dealers whose parcels could not be opened, and the holders that say so: one of the two lies, and
              nobody can tell which, so neither is asked again for a while
    """

    opening: Opening
    parcels: Mapping[int, tuple[Parcel, ...]] = field(default_factory=dict, repr=False)
    keeping: frozenset[int] = frozenset()
    disputed: frozenset[int] = frozenset()

    @property
    def boxes(self) -> tuple[BoxKey, ...]:
        """What every dealer seals with, in the order of the session."""
        return tuple(self.opening.boxes[site] for site in self.opening.session.unmaskers)

    @property
    def undealt(self) -> frozenset[int]:
        """Unmasking sites whose parcels are missing."""
        return frozenset(self.opening.session.unmaskers) - frozenset(self.parcels)

    @property
    def unkept(self) -> frozenset[int]:
        """Unmasking sites that have not said that they keep their shares."""
        return frozenset(self.opening.session.unmaskers) - self.keeping

    def receive(self, site: int, parcels: Sequence[Parcel]) -> Dealing:
        """With the parcels of one dealer.

        Errors: Refusal E_POLICY (not asked), E_DUP, E_SHARE (not one for each other site, wrong sizes), E_SIG.
        """
        session = self.opening.session
        if site not in session.unmaskers:
            raise Refusal(Code.E_POLICY, "Parcels refused", "their site was not asked", "Ask those of the session")
        if site in self.parcels:
            raise Refusal(Code.E_DUP, "Parcels refused", f"site {site} dealt already", "Wait for the others")
        ends = [(parcel.dealer, parcel.holder) for parcel in parcels]
        if ends != [(site, holder) for holder in session.unmaskers if holder != site]:
            why = "they are not one for each other unmasking site, in order"
            raise Refusal(Code.E_SHARE, "Parcels refused", why, "Deal for this session")
        for parcel in parcels:
            verify_parcel(self.opening.manifest, session, parcel)
        return replace(self, parcels={**self.parcels, site: tuple(parcels)})

    def meant_for(self, holder: int) -> tuple[Parcel, ...]:
        """The parcels for one holder, in the order of their dealers."""
        dealers = (self.parcels[site] for site in self.opening.session.unmaskers if site != holder)
        return tuple(parcel for parcels in dealers for parcel in parcels if parcel.holder == holder)

    def confirm(self, site: int, bad: Collection[int]) -> Dealing:
        """With the word of one holder: all shares are kept, or these dealers' parcels are bad.

        Errors: Refusal E_POLICY (not asked, or no such dealers).
        """
        others = set(self.opening.session.unmaskers) - {site}
        if site not in self.opening.session.unmaskers or not set(bad) <= others:
            raise Refusal(Code.E_POLICY, "Word refused", "it names sites that did not deal", "Ask those of the session")
        if bad:
            return replace(self, disputed=self.disputed | {site, *bad})
        return replace(self, keeping=self.keeping | {site})

    def close(self) -> Opening:
        """The session, with what finds a false share. Errors: Refusal E_HELPER_LOST while any is missing."""
        if self.undealt or self.unkept:
            why = f"sites {sorted(self.undealt | self.unkept)} did not deal or keep shares"
            raise Refusal(Code.E_HELPER_LOST, "Session not opened", why, "Open one without them")
        commitments = {
            (parcel.dealer, parcel.holder): parcel.commitments
            for parcels in self.parcels.values()
            for parcel in parcels
        }
        return replace(self.opening, commitments=commitments)

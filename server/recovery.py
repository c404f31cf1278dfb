"""Recovery of unmasking sites that were lost after the reports were in: shares of the others rebuild their seeds.

Source: anytrust late masking, `alm-v1`; Shamir 1979.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from common.errors import Code, Refusal
from common.secagg.keys import RoundSeed, public
from common.secagg.parcels import share_commitment
from common.secagg.shamir import join
from common.secagg.statements import verify_release
from common.secagg.totals import mask_sum
from common.secagg.wire import ShareRelease
from server.enrolment import Opening
from server.secagg import Unmasking


@dataclass(frozen=True)
class Recovering:
    """The coordinator waits for shares of the lost sites' seeds. Which sites are lost is fixed: nobody answers twice.

    released  shares in the order of `lost`, by holder
    """

    opening: Opening
    unmasking: Unmasking
    lost: tuple[int, ...]
    released: Mapping[int, tuple[bytes, ...]] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, opening: Opening, unmasking: Unmasking) -> Recovering:
        """Recover every unmasking site that has not answered. Errors: Refusal E_HELPER_LOST (too many, or none)."""
        lost, most = tuple(sorted(unmasking.missing)), opening.manifest.rules.lost_max
        if not 1 <= len(lost) <= most:
            why = f"{len(lost)} unmasking sites are lost, the rules let {most} be recovered"
            raise Refusal(Code.E_HELPER_LOST, "Masks not recovered", why, "Repeat the round")
        return cls(opening, unmasking, lost)

    @property
    def missing(self) -> frozenset[int]:
        """Unmasking sites whose shares are missing: those that answered and did not release any yet."""
        return self.unmasking.answered - frozenset(self.released)

    @property
    def enough(self) -> bool:
        """Whether these shares rebuild the seeds."""
        return len(self.released) >= self.opening.manifest.rules.shares_min

    def receive(self, site: int, release: ShareRelease) -> Recovering:
        """With the shares of one holder.

        Errors: Refusal E_POLICY (not asked), E_DUP, E_ROUND (another number), E_SET (another set or other lost sites),
        E_SIG, E_SHARE (a share is not the one that its dealer committed to). Nothing is kept then.
        """
        aggregation = self.unmasking.aggregation
        if release.holder != site or site not in self.unmasking.answered:
            raise Refusal(Code.E_POLICY, "Shares refused", "their site was not asked", "Ask those that answered")
        if site in self.released:
            raise Refusal(Code.E_DUP, "Shares refused", f"site {site} released its own already", "Wait for the others")
        if release.number != aggregation.number:
            raise Refusal(Code.E_ROUND, "Shares refused", "they are of another number", "Answer the order in force")
        if release.set_digest != self.unmasking.set_digest(site) or release.lost != self.lost:
            raise Refusal(Code.E_SET, "Shares refused", "they are for another set", "Answer the order in force")
        verify_release(aggregation.manifest, aggregation.context, release)
        if len(release.shares) != len(self.lost) or not all(
            self._committed(site, dealer, share) for dealer, share in zip(self.lost, release.shares, strict=True)
        ):
            raise Refusal(Code.E_SHARE, "Shares refused", "one is not what its dealer dealt", "Do without this site")
        return replace(self, released={**self.released, site: release.shares})

    def recover(self, unmasking: Unmasking, site: int) -> Unmasking:
        """`unmasking` with the masks of one lost site taken away, computed from its rebuilt seed.

        Errors: Refusal E_HELPER_LOST (too few shares), E_SHARE (the seed is not behind the keys that the lost site
        signed: it dealt false shares), E_DUP.
        """
        if not self.enough:
            why = f"{len(self.released)} sites released their shares"
            raise Refusal(Code.E_HELPER_LOST, "Masks not recovered", why, "Repeat the round")
        seed, aggregation = self._seed(site), unmasking.aggregation
        return unmasking.without(site, mask_sum(aggregation, site, seed, unmasking.members(site)))

    def _seed(self, site: int) -> RoundSeed:
        """The seed that its first shares give, if it is the one behind the certified keys."""
        session, place = self.opening.session, self.lost.index(site)
        chosen = sorted(self.released)[: self.opening.manifest.rules.shares_min]
        seed = RoundSeed(join({session.unmaskers.index(holder) + 1: self.released[holder][place] for holder in chosen}))
        certified = self.opening.keys(self.unmasking.aggregation.number)[session.unmaskers.index(site)]
        kem = public(seed.kem) if session.suite == 2 else None
        if (public(seed.exchange), kem) != (certified.exchange, certified.kem):
            why = "its shares are of another seed than its keys"
            raise Refusal(Code.E_SHARE, f"Masks of site {site} not recovered", why, "Open a session without it")
        return seed

    def _committed(self, holder: int, dealer: int, share: bytes) -> bool:
        number, session = self.unmasking.aggregation.number, self.opening.session
        promised = self.opening.commitments[dealer, holder][number - session.first]
        return share_commitment(session, number, dealer, holder, share) == promised

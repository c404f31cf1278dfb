"""Pairwise masks at a site, stage by stage: Advertised -> Dealt -> Masked -> Agreed -> shares.

Every stage is a frozen value that holds what the site answers in it; the next one exists only after the checks of its
order, and a refused order changes nothing. Secrets live in memory alone: a site that restarts has left the attempt,
and has nothing left to reveal. Source: Bonawitz et al. 2017, figure 4; Bell et al. 2020.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from common.errors import Code, Refusal
from common.identity import Signer
from common.secagg.codec import Encoded
from common.secagg.masks import pack, reduce
from common.secagg.pairwise.attempt import Attempt, endorse, opens_pair, sign_keys, verify_endorsement, verify_keys
from common.secagg.pairwise.keys import Held, Link, Secrets, Way, opened, sealed, self_key
from common.secagg.pairwise.masking import apply, sides
from common.secagg.pairwise.wire import Endorsement, Lock, PairKeys, PairParcel, RevealedShare
from common.secagg.shamir import share


@dataclass(frozen=True)
class Advertised:
    """The site has drawn its secrets and waits for the keys of its peers. `encoded` is not yet masked."""

    attempt: Attempt
    keys: PairKeys
    secrets: Secrets = field(repr=False)
    encoded: Encoded = field(repr=False)

    @classmethod
    def open(cls, signer: Signer, attempt: Attempt, encoded: Encoded) -> Advertised:
        """New secrets for one attempt. Errors: Refusal E_MANIFEST, E_SET (not asked), E_RANGE (another ring)."""
        own = attempt.manifest.site_of(signer.public).id
        if own not in attempt.cohort:
            raise _set_refused("this site is not in the cohort")
        if encoded.ring != attempt.ring:
            raise Refusal(Code.E_RANGE, "Attempt refused", "its vector is of another ring", "Encode it for this job")
        secrets = Secrets.generate()
        keys = secrets.keys(attempt.context, own, attempt.number, os.urandom(32), attempt.session.suite)
        return cls(attempt, sign_keys(signer, attempt, keys), secrets, encoded)

    @cached_property
    def holders(self) -> Mapping[int, int]:
        """Holder number of every site that this one deals to, itself included."""
        return self.attempt.holders(self.keys.site, self.keys.seed)

    def deal(self, peers: Sequence[PairKeys]) -> Dealt:
        """Shares for the peers that this site chose.

        peers  keys of all its neighbours that are present, ascending
        Errors: Refusal E_SET (order, strangers, no neighbours), E_SIG, E_KEY, E_TOO_FEW (peers below the threshold).
        """
        attempt, own = self.attempt, self.keys.site
        ids = [peer.site for peer in peers]
        if ids != sorted(set(ids)) or own in ids:
            raise _set_refused("keys do not ascend, or this site's own are among them")
        for peer in peers:
            verify_keys(attempt, peer)
            if peer.site not in self.holders and own not in attempt.chosen(peer.site, peer.seed):
                raise _set_refused("neither of a pair chose the other")
        _check_enough(attempt, self.holders, [own, *ids])
        by_id = {peer.site: peer for peer in peers}
        held = self._shares()
        parcels = tuple(self._parcel(by_id[each], held[each]) for each in sorted(by_id.keys() & self.holders.keys()))
        return Dealt(self, by_id, held[own], parcels)

    def opens(self, peer: PairKeys) -> bool:
        """Whether this site is the one of the pair that sends the lock."""
        return opens_pair(self.keys.site, peer.site, self.holders, self.attempt.chosen(peer.site, peer.seed))

    def link(self, peer: PairKeys, lock: Lock | None) -> Link:
        """The pair with `peer`, from the site that opened it to the other."""
        first, second = (self.keys, peer) if self.opens(peer) else (peer, self.keys)
        return Link(context=self.attempt.context, first=first, second=second, lock=lock)

    def _shares(self) -> dict[int, Held]:
        threshold, count = self.attempt.shape.threshold, len(self.holders)
        own = share(self.secrets.own, threshold, count)
        pair = share(self.secrets.pair.reveal(), threshold, count)
        return {holder: Held(own=own[x - 1], pair=pair[x - 1]) for holder, x in self.holders.items()}

    def _parcel(self, peer: PairKeys, held: Held) -> PairParcel:
        way = Way(context=self.attempt.context, dealer=self.keys, holder=peer)
        lock = self.link(peer, None).locked(self.secrets.pair) if self.opens(peer) else None
        return sealed(way, self.secrets.box, held, lock)


@dataclass(frozen=True)
class Dealt:
    """Shares are dealt; the site waits for those of its peers. `peers`: keys by site; `own`: its shares of itself."""

    before: Advertised
    peers: Mapping[int, PairKeys] = field(repr=False)
    own: Held = field(repr=False)
    parcels: tuple[PairParcel, ...] = field(repr=False)

    def mask(self, dealt: Sequence[int], parcels: Sequence[PairParcel]) -> Masked:
        """The vector under this site's own mask and one of each neighbour that has dealt. Overwrites the lanes.

        dealt    ids of those neighbours, ascending
        parcels  of those of them that chose this site
        A parcel that does not open is as good as none: its dealer has one holder less. But one with a lock must open:
        whoever made that lock knows what it adds to the mask key.
        Errors: Refusal E_SET (no neighbours, not the parcels of these dealers), E_TOO_FEW, E_KEY.
        """
        start, site = self.before, self.before.keys.site
        if list(dealt) != sorted(set(dealt)) or not self.peers.keys() >= set(dealt):
            raise _set_refused("those that dealt do not ascend, or are no neighbours")
        _check_enough(start.attempt, start.holders, [site, *dealt])
        received = self._checked(dealt, parcels)
        held = {site: self.own, **self._opened(received)}
        plus, minus = sides(site, self._mask_keys(dealt, received))
        plus.append(self_key(start.attempt.context, site, start.secrets.own))
        lanes = start.encoded.lanes
        apply(plus, minus, lanes)
        ring = start.attempt.ring
        body = pack(ring, reduce(ring, lanes))
        return Masked(start.attempt, site, start.holders, frozenset(dealt), held, body)

    def _checked(self, dealt: Sequence[int], parcels: Sequence[PairParcel]) -> dict[int, PairParcel]:
        """One parcel of each dealer that chose this site, with its lock where it opened the pair."""
        start, site = self.before, self.before.keys.site
        chosen_by = [peer for peer in dealt if site in start.attempt.chosen(peer, self.peers[peer].seed)]
        if [(parcel.dealer, parcel.holder) for parcel in parcels] != [(peer, site) for peer in chosen_by]:
            raise _set_refused("its parcels are not one of each dealer that chose this site")
        for parcel in parcels:
            hybrid, opener = start.attempt.session.suite == 2, start.opens(self.peers[parcel.dealer])
            if (parcel.ciphertext is not None, parcel.lock is not None) != (hybrid, hybrid and not opener):
                raise Refusal(Code.E_KEY, "Parcel refused", "its ciphertexts do not fit the suite", "Relay it whole")
        return {parcel.dealer: parcel for parcel in parcels}

    def _mask_keys(self, dealt: Sequence[int], received: Mapping[int, PairParcel]) -> dict[int, bytes]:
        start, found = self.before, {}
        sent = {parcel.holder: parcel for parcel in self.parcels}
        for peer in dealt:
            keys, seed = self.peers[peer], start.secrets.pair
            if start.opens(keys):
                found[peer] = start.link(keys, sent[peer].lock).key_from_first(seed)
            else:
                found[peer] = start.link(keys, received[peer].lock).key_from_second(seed)
        return found

    def _opened(self, received: Mapping[int, PairParcel]) -> dict[int, Held]:
        """The shares of each dealer whose parcel opens; none is masked under a lock that its dealer did not seal."""
        start, found = self.before, {}
        for dealer, parcel in received.items():
            way = Way(context=start.attempt.context, dealer=self.peers[dealer], holder=start.keys)
            try:
                found[dealer] = opened(way, start.secrets.box, parcel)
            except Refusal as refusal:
                if refusal.code is Code.E_KEY and parcel.lock is not None:
                    raise
        return found


@dataclass(frozen=True)
class Masked:
    """The vector is masked and the site's own secrets are gone; what is left of the attempt are shares of others.

    masked  neighbours that share a mask with it        held  shares by dealer, its own included
    """

    attempt: Attempt
    site: int
    holders: Mapping[int, int]
    masked: frozenset[int]
    held: Mapping[int, Held] = field(repr=False)
    body: bytes = field(repr=False)

    def agree(self, signer: Signer, survivors: Sequence[int]) -> Agreed:
        """A signature over the set of survivors, the only one of this attempt.

        Errors: Refusal E_SET (not within the rules, this site or the shares of too many peers are missing, a
        neighbour that shares no mask), E_MANIFEST.
        """
        rules, manifest, ids = self.attempt.manifest.rules, self.attempt.manifest, set(survivors)
        if list(survivors) != sorted(ids) or not ids <= set(self.attempt.cohort) or self.site not in ids:
            raise _set_refused("survivors do not ascend, were not asked, or this site is not among them")
        if not self.attempt.quorum <= len(ids) or len(manifest.orgs(ids)) < rules.orgs_min:
            raise _set_refused(
                f"survivors are fewer than {self.attempt.quorum} sites of {rules.orgs_min} organisations"
            )
        if (ids & self.holders.keys()) - {self.site} - self.masked:
            raise _set_refused("a survivor that this site chose shares no mask with it")
        _check_enough(self.attempt, self.holders, survivors, Code.E_SET)
        return Agreed(self, tuple(survivors), endorse(signer, self.attempt, survivors))


@dataclass(frozen=True)
class Agreed:
    """The set is fixed and signed; the site waits for the signatures of its peers."""

    before: Masked
    survivors: tuple[int, ...]
    signature: bytes

    def reveal(self, endorsements: Sequence[Endorsement]) -> tuple[RevealedShare, ...]:
        """One share of each dealer: of its own mask if it survived, else of its pair seed. Never both.

        endorsements  of survivors, ascending; of those that hold this site's shares as many as the threshold
        Errors: Refusal E_SET (order, strangers, too few), E_SIG.
        """
        held, attempt = self.before, self.before.attempt
        signers = [endorsement.site for endorsement in endorsements]
        if signers != sorted(set(signers)):
            raise _set_refused("signatures do not ascend")
        _check_enough(attempt, held.holders, signers, Code.E_SET)
        for endorsement in endorsements:
            verify_endorsement(attempt, self.survivors, endorsement)
        alive = set(self.survivors)
        return tuple(
            RevealedShare(dealer=dealer, share=shares.own if dealer in alive else shares.pair)
            for dealer, shares in sorted(held.held.items())
        )


def _check_enough(
    attempt: Attempt, holders: Mapping[int, int], present: Collection[int], code: Code = Code.E_TOO_FEW
) -> None:
    """Refuse where fewer than the threshold hold this site's shares: privacy and recovery both count on them."""
    if len(holders.keys() & set(present)) < attempt.shape.threshold:
        why = f"fewer than {attempt.shape.threshold} of those that hold its shares are present"
        raise Refusal(code, "Stage refused", why, "Wait for more sites and repeat the round")


def _set_refused(why: str) -> Refusal:
    return Refusal(Code.E_SET, "Stage refused", why, "Keep to the sites of this attempt")

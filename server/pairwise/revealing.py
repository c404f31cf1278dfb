"""The last stage of an attempt by pairwise masks: shares come in, secrets are rebuilt, and the sum is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from common.errors import Code, Refusal
from common.secagg.codec import Codec, Sum
from common.secagg.keys import RoundSeed, public
from common.secagg.masks import reduce
from common.secagg.pairwise.attempt import Attempt, opens_pair
from common.secagg.pairwise.keys import Link, self_digest, self_key, share_commitment
from common.secagg.pairwise.masking import apply, sides
from common.secagg.pairwise.wire import Endorsement, PairKeys, PairParcel, RevealedShare
from common.secagg.shamir import join
from server.secagg import Accumulator


@dataclass(frozen=True)
class Revealing:
    """The survivors are agreed; the coordinator waits for shares of their own masks and of the pair seeds of the lost.

    signatures  over the set, by site        keys  of all that advertised
    parcels     by dealer and holder, of all that have dealt: among these are masks
    """

    attempt: Attempt
    survivors: tuple[int, ...]
    signatures: Mapping[int, bytes] = field(repr=False)
    keys: Mapping[int, PairKeys] = field(repr=False)
    parcels: Mapping[int, Mapping[int, PairParcel]] = field(repr=False)
    total: Accumulator = field(repr=False)
    shares: Mapping[int, Mapping[int, bytes]] = field(default_factory=dict, repr=False)

    @property
    def asked(self) -> tuple[int, ...]:
        """Sites whose answer this stage takes."""
        return tuple(self.signatures)

    @cached_property
    def neighbours(self) -> Mapping[int, frozenset[int]]:
        """Whom each site that has dealt shares a mask with."""
        return self.attempt.neighbours([self.keys[site] for site in self.parcels])

    def endorsements(self, site: int) -> tuple[Endorsement, ...]:
        """What a site needs to see before it reveals anything: signatures of those that hold its shares."""
        holders = self.attempt.holders(site, self.keys[site].seed)
        return tuple(Endorsement(site=each, signature=self.signatures[each]) for each in self.asked if each in holders)

    def receive(self, site: int, shares: Sequence[RevealedShare]) -> Revealing:
        """With the shares of one site. A share that is not the one its dealer committed to spoils all of its holder's.

        Errors: Refusal E_SET (not asked, dealers repeat or did not deal to it), E_DUP, E_SHARE.
        """
        if site not in self.asked:
            raise Refusal(Code.E_SET, "Shares refused", f"site {site} signed no set", "Wait for another round")
        if site in self.shares:
            raise Refusal(Code.E_DUP, "Shares refused", f"site {site} answered already", "Wait for the others")
        dealers = [each.dealer for each in shares]
        if dealers != sorted(set(dealers)):
            raise Refusal(Code.E_SET, "Shares refused", "their dealers do not ascend", "Send each share once")
        for each in shares:
            self._check_share(site, each)
        return replace(self, shares={**self.shares, site: {each.dealer: each.share for each in shares}})

    def _check_share(self, holder: int, revealed: RevealedShare) -> None:
        dealer = revealed.dealer
        if dealer == holder:
            return  # of its own secret: the secret is checked as a whole
        if dealer not in self.parcels or holder not in self.parcels[dealer]:
            raise Refusal(Code.E_SET, "Shares refused", "a dealer did not deal to this site", "Send what you hold")
        parcel = self.parcels[dealer][holder]
        expected = parcel.self_commitment if dealer in self.survivors else parcel.pair_commitment
        if share_commitment(self.attempt.context, dealer, holder, revealed.share) != expected:
            raise Refusal(
                Code.E_SHARE, "Shares refused", "one is not what its dealer committed to", "Send what you hold"
            )

    @cached_property
    def lost(self) -> tuple[int, ...]:
        """Sites whose masks are in the sum and whose vectors are not."""
        return tuple(sorted(self.parcels.keys() - set(self.survivors)))

    @cached_property
    def rebuilt(self) -> Mapping[int, bytes]:
        """The secrets that could be rebuilt and are those that their dealers advertised."""
        found = {}
        for dealer in self.parcels:
            secret = self._joined(dealer)
            if secret is not None and self._genuine(dealer, secret):
                found[dealer] = secret
        return found

    @property
    def false(self) -> frozenset[int]:
        """Dealers whose shares are enough and yet rebuild nothing that they advertised."""
        enough = {dealer for dealer in self.parcels if len(self._shares_of(dealer)) >= self.attempt.shape.threshold}
        return frozenset(enough - self.rebuilt.keys())

    def open(self, codec: Codec) -> Sum:
        """The sum of the survivors' vectors.

        Errors: Refusal E_SHARE (a dealer lied), E_TOO_FEW (shares below the threshold), E_RANGE (codec of another
        ring), E_SUM_CHECK.
        """
        if codec.ring != self.attempt.ring:
            raise Refusal(Code.E_RANGE, "Sum not opened", "the codec is of another ring", "Use the job's codec")
        if self.false:
            why = f"sites {sorted(self.false)} dealt shares of something else than they advertised"
            raise Refusal(Code.E_SHARE, "Sum not opened", why, "Repeat the round without them")
        if missing := sorted(self.parcels.keys() - self.rebuilt.keys()):
            why = f"shares of sites {missing} are fewer than {self.attempt.shape.threshold}"
            raise Refusal(Code.E_TOO_FEW, "Sum not opened", why, "Wait for more sites and repeat the round")
        lanes = self.total.total(len(self.survivors))
        plus, minus = self._lost_masks()
        own = [self_key(self.attempt.context, site, self.rebuilt[site]) for site in self.survivors]
        apply(plus, minus + own, lanes)
        return codec.open_sum(reduce(self.attempt.ring, lanes), len(self.survivors))

    def _lost_masks(self) -> tuple[list[bytes], list[bytes]]:
        """Masks that a lost site would have added and taken away: survivors' halves of them are still in the sum."""
        plus: list[bytes] = []
        minus: list[bytes] = []
        for site in self.lost:
            seed = RoundSeed(self.rebuilt[site])
            peers = self.neighbours[site] & set(self.survivors)
            added, taken = sides(site, {peer: self._mask_key(site, peer, seed) for peer in peers})
            plus += added
            minus += taken
        return plus, minus

    def _mask_key(self, site: int, peer: int, seed: RoundSeed) -> bytes:
        """The mask key of a lost site and a survivor, with the seed of the lost one."""
        own, other = self.keys[site], self.keys[peer]
        chosen, back = self.attempt.chosen(site, own.seed), self.attempt.chosen(peer, other.seed)
        if opens_pair(site, peer, chosen, back):
            link = Link(context=self.attempt.context, first=own, second=other, lock=self.parcels[site][peer].lock)
            return link.key_from_first(seed)
        link = Link(context=self.attempt.context, first=other, second=own, lock=self.parcels[peer][site].lock)
        return link.key_from_second(seed)

    def _shares_of(self, dealer: int) -> dict[int, bytes]:
        """Shares of one dealer by holder number."""
        numbers = self.attempt.holders(dealer, self.keys[dealer].seed)
        return {
            numbers[holder]: shares[dealer]
            for holder, shares in self.shares.items()
            if holder in numbers and dealer in shares
        }

    def _joined(self, dealer: int) -> bytes | None:
        """The secret from as many shares as the threshold, those of other holders before the dealer's own."""
        shares, threshold = self._shares_of(dealer), self.attempt.shape.threshold
        if len(shares) < threshold:
            return None
        try:
            return join(dict(sorted(shares.items(), reverse=True)[:threshold]))
        except Refusal:
            return None

    def _genuine(self, dealer: int, secret: bytes) -> bool:
        keys = self.keys[dealer]
        if dealer in self.survivors:
            return self_digest(self.attempt.context, dealer, secret) == keys.self_digest
        seed = RoundSeed(secret)
        return public(seed.exchange) == keys.exchange and (keys.kem is None or public(seed.kem) == keys.kem)

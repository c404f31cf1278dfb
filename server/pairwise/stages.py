"""The stages of an attempt by pairwise masks up to the agreed set, each a frozen value; a late answer moves nothing.

A message is checked whole before it moves anything; masked vectors are added on arrival. Who does not answer a stage
is gone from the next ones. Source: Bonawitz et al. 2017, figure 4; Bell et al. 2020.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from common.errors import Code, Refusal
from common.secagg.keys import agree, encapsulate
from common.secagg.pairwise.attempt import Attempt, opens_pair, verify_endorsement, verify_keys
from common.secagg.pairwise.wire import Endorsement, PairKeys, PairParcel
from server.pairwise.revealing import Revealing
from server.secagg import Accumulator


@dataclass(frozen=True)
class Advertising:
    """The coordinator waits for public keys of the cohort."""

    attempt: Attempt
    keys: Mapping[int, PairKeys] = field(default_factory=dict, repr=False)

    @property
    def asked(self) -> tuple[int, ...]:
        """Sites whose answer this stage takes."""
        return self.attempt.cohort

    def receive(self, site: int, keys: PairKeys) -> Advertising:
        """With the keys of one site more. Errors: Refusal E_SET (not asked, another's), E_DUP, E_SIG, E_KEY."""
        _check_asked(site, self.asked, self.keys)
        if keys.site != site:
            raise Refusal(Code.E_SET, "Keys refused", "they are another site's", "Send your own")
        verify_keys(self.attempt, keys)
        _check_usable(keys)
        return replace(self, keys={**self.keys, site: keys})

    def close(self) -> Dealing:
        """Fix who takes part. Errors: Refusal E_TOO_FEW."""
        _check_quorum(self.attempt, self.keys)
        return Dealing(self.attempt, dict(sorted(self.keys.items())))


@dataclass(frozen=True)
class Dealing:
    """The coordinator waits for parcels of shares, from each site to those that it chose."""

    attempt: Attempt
    keys: Mapping[int, PairKeys] = field(repr=False)
    parcels: Mapping[int, Mapping[int, PairParcel]] = field(default_factory=dict, repr=False)

    @cached_property
    def neighbours(self) -> Mapping[int, frozenset[int]]:
        """Whom each site shares a mask with."""
        return self.attempt.neighbours(self.keys.values())

    @property
    def asked(self) -> tuple[int, ...]:
        """Sites whose answer this stage takes."""
        return tuple(self.keys)

    def peers(self, site: int) -> tuple[PairKeys, ...]:
        """Keys of a site's neighbours, ascending."""
        return tuple(self.keys[peer] for peer in sorted(self.neighbours[site]))

    def receive(self, site: int, parcels: Sequence[PairParcel]) -> Dealing:
        """With the parcels of one dealer. Errors: Refusal E_SET (not asked, not one a peer), E_DUP, E_KEY (suite)."""
        _check_asked(site, self.asked, self.parcels)
        chosen = self.attempt.chosen(site, self.keys[site].seed)
        holders = sorted(self.keys.keys() & set(chosen))
        if [(parcel.dealer, parcel.holder) for parcel in parcels] != [(site, holder) for holder in holders]:
            raise Refusal(Code.E_SET, "Parcels refused", "they are not one of each chosen peer", "Deal to all of them")
        hybrid = self.attempt.session.suite == 2
        for parcel in parcels:
            back = self.attempt.chosen(parcel.holder, self.keys[parcel.holder].seed)
            locked = hybrid and opens_pair(site, parcel.holder, chosen, back)
            if (parcel.ciphertext is not None, parcel.lock is not None) != (hybrid, locked):
                raise Refusal(Code.E_KEY, "Parcels refused", "their ciphertexts do not fit", "Use the rules' suite")
        return replace(self, parcels={**self.parcels, site: {parcel.holder: parcel for parcel in parcels}})

    def close(self) -> Masking:
        """Fix whose masks are added. Errors: Refusal E_TOO_FEW."""
        _check_quorum(self.attempt, self.parcels)
        return Masking(replace(self, parcels=dict(sorted(self.parcels.items()))), Accumulator(self.attempt.ring))


@dataclass(frozen=True)
class Masking:
    """The coordinator waits for masked vectors; each is added on arrival and dropped."""

    dealt: Dealing
    total: Accumulator = field(repr=False)
    masked: frozenset[int] = frozenset()

    @property
    def asked(self) -> tuple[int, ...]:
        """Sites whose answer this stage takes."""
        return tuple(self.dealt.parcels)

    def masks(self, site: int) -> tuple[int, ...]:
        """Neighbours that a site shares a mask with, ascending: those that have dealt."""
        return tuple(sorted(self.dealt.neighbours[site] & self.dealt.parcels.keys()))

    def incoming(self, site: int) -> tuple[PairParcel, ...]:
        """Parcels for a site, by ascending dealer."""
        dealt = self.dealt.parcels
        return tuple(dealt[dealer][site] for dealer in self.masks(site) if site in dealt[dealer])

    def receive(self, site: int, body: bytes) -> Masking:
        """With one vector more. Errors: Refusal E_SET (not asked), E_DUP, E_ROUND (old state), MESSAGE_INVALID."""
        _check_asked(site, self.asked, self.masked)
        self.total.add(len(self.masked), body)
        return replace(self, masked=self.masked | {site})

    def close(self) -> Agreeing:
        """Fix the set of survivors: from here on no vector is added. Errors: Refusal E_TOO_FEW."""
        _check_quorum(self.dealt.attempt, self.masked)
        return Agreeing(self)


@dataclass(frozen=True)
class Agreeing:
    """The coordinator waits for the survivors' signatures over their own set."""

    before: Masking
    signatures: Mapping[int, bytes] = field(default_factory=dict, repr=False)

    @property
    def asked(self) -> tuple[int, ...]:
        """Sites whose answer this stage takes."""
        return self.survivors

    @cached_property
    def survivors(self) -> tuple[int, ...]:
        """Sites whose vectors are in the sum, ascending."""
        return tuple(sorted(self.before.masked))

    def receive(self, site: int, signature: bytes) -> Agreeing:
        """With one signature more. Errors: Refusal E_SET (no survivor), E_DUP, E_SIG."""
        _check_asked(site, self.asked, self.signatures)
        endorsement = Endorsement(site=site, signature=signature)
        verify_endorsement(self.before.dealt.attempt, self.survivors, endorsement)
        return replace(self, signatures={**self.signatures, site: signature})

    def close(self) -> Revealing:
        """Fix who is asked for shares. Errors: Refusal E_TOO_FEW."""
        dealt = self.before.dealt
        if len(self.signatures) < dealt.attempt.shape.threshold:
            raise _too_few(f"{len(self.signatures)} sites have signed the set of survivors")
        signatures = dict(sorted(self.signatures.items()))
        return Revealing(dealt.attempt, self.survivors, signatures, dealt.keys, dealt.parcels, self.before.total)


def _check_asked(site: int, asked: Collection[int], answered: Collection[int]) -> None:
    if site not in asked:
        raise Refusal(Code.E_SET, "Answer refused", f"site {site} is not asked in this stage", "Wait for another round")
    if site in answered:
        raise Refusal(Code.E_DUP, "Answer refused", f"site {site} answered already", "Wait for the others")


def _check_usable(keys: PairKeys) -> None:
    """Refuse keys that an honest peer could not use: one site must not stop the others. Errors: Refusal E_KEY."""
    trial = X25519PrivateKey.generate()
    for exchange, kem in ((keys.exchange, keys.kem), (keys.box_exchange, keys.box_kem)):
        agree(trial, exchange)
        if kem is not None:
            encapsulate(kem)


def _check_quorum(attempt: Attempt, sites: Collection[int]) -> None:
    rules, manifest = attempt.manifest.rules, attempt.manifest
    least = max(attempt.quorum, attempt.shape.threshold)
    if len(sites) < least or len(manifest.orgs(sites)) < rules.orgs_min:
        raise _too_few(f"{len(sites)} sites are left of {least}, and {rules.orgs_min} organisations are asked for")


def _too_few(why: str) -> Refusal:
    return Refusal(Code.E_TOO_FEW, "Attempt dropped", why, "Wait for more sites and repeat the round")

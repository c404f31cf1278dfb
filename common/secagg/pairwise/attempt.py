"""One attempt at a sum by pairwise masks: what binds it, who chose whom, and what is signed in it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from msgspec.structs import replace

from common.errors import Code, Refusal
from common.frames import pack
from common.identity import Signer, verify
from common.secagg.manifest import Manifest
from common.secagg.masks import Ring, keystream
from common.secagg.pairwise.strength import Shape, shape_of
from common.secagg.pairwise.wire import Endorsement, PairKeys, PairSession

_CONTEXT = b"pairwise-v1/ctx\0"
_GRAPH = b"pairwise-v1/graph\0"
_KEYS = b"pairwise-v1/keys\0"
_SET = b"pairwise-v1/set\0"
_AGREE = b"pairwise-v1/agree\0"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One attempt: under which manifest and session, with which number, among whom, over what.

    number   used once in the life of a session
    cohort   ids of the sites that are asked, ascending
    binding  h_model, as in `Aggregation`: digest of kind, round, attempt, model and job
    quorum   fewest survivors whose sum is opened: the job's, if that is above the manifest's
    Errors: Refusal E_MANIFEST, E_POLICY (outside the manifest's rules, or no guarantee in this cohort), E_SET (cohort),
    E_MODEL.
    """

    manifest: Manifest
    session: PairSession
    number: int
    cohort: tuple[int, ...]
    binding: bytes
    ring: Ring
    quorum: int

    def __post_init__(self) -> None:
        rules = self.manifest.rules
        if self.session.manifest != self.manifest.digest:
            raise Refusal(Code.E_MANIFEST, "Attempt refused", "it names another manifest", "Use the one in force")
        if self.session.suite != rules.suite or self.quorum < rules.quorum_min:
            raise Refusal(Code.E_POLICY, "Attempt refused", "its suite or quorum breaks the rules", "Keep to them")
        if list(self.cohort) != sorted(set(self.cohort)) or not set(self.cohort) <= set(self.manifest.ids):
            raise Refusal(Code.E_SET, "Cohort refused", "its ids do not ascend or are unknown", "Ask known sites")
        if not self.quorum <= len(self.cohort) <= rules.sites_max:
            raise Refusal(Code.E_SET, "Cohort refused", "it is below the quorum or above sites_max", "Ask others")
        if len(self.binding) != 32:
            raise Refusal(Code.E_MODEL, "Binding refused", "it is no SHA-256 digest", "Hash what the sum is about")
        check_manifest(self.manifest)
        _ = self.shape

    @cached_property
    def context(self) -> bytes:
        """ctx: SHA-256 of h_F, h_R, number, cohort, h_model."""
        record = hashlib.sha256(pack(self.session)).digest()
        place = self.manifest.digest + record + _le(self.number) + hashlib.sha256(_ids(self.cohort)).digest()
        return hashlib.sha256(_CONTEXT + place + self.binding).digest()

    @cached_property
    def shape(self) -> Shape:
        """Degree and threshold, by rules, cohort and quorum alone."""
        return shape_of(len(self.cohort), self.manifest.rules.corrupt_max, self.quorum)

    def chosen(self, site: int, seed: bytes) -> tuple[int, ...]:
        """The peers that `site` chose with its public `seed`, in the order in which they hold its shares.

        An honest site's seed is fresh, so nobody else has a say in its choice; a corrupt one chooses only for itself.
        """
        if (site, seed) not in self._choices:
            self._choices[site, seed] = _chosen(self.context, self.cohort, self.shape.degree, (site, seed))
        return self._choices[site, seed]

    @cached_property
    def _choices(self) -> dict[tuple[int, bytes], tuple[int, ...]]:
        """What `chosen` found before."""
        return {}

    def holders(self, site: int, seed: bytes) -> dict[int, int]:
        """Holder number of each site that holds shares of `site`: itself 1, the peers it chose from 2 on."""
        return {holder: x for x, holder in enumerate((site, *self.chosen(site, seed)), start=1)}

    def neighbours(self, keys: Collection[PairKeys]) -> dict[int, frozenset[int]]:
        """Whom each of these sites shares a mask with: those of them that it chose or was chosen by."""
        here = {each.site for each in keys}
        found: dict[int, set[int]] = {site: set() for site in here}
        for each in keys:
            for peer in here.intersection(self.chosen(each.site, each.seed)):
                found[each.site].add(peer)
                found[peer].add(each.site)
        return {site: frozenset(peers) for site, peers in found.items()}


def check_manifest(manifest: Manifest) -> None:
    """Refuse a manifest that bounds corruption among some of its sites only: here all of them hold shares."""
    if manifest.unmaskers != manifest.ids:
        raise Refusal(
            Code.E_POLICY,
            "Pairwise masks refused",
            "all sites hold shares, and the manifest bounds corruption only among some of them",
            "Let governance name all sites as unmasking sites",
        )


def opens_pair(site: int, peer: int, chosen: Collection[int], chosen_by_peer: Collection[int]) -> bool:
    """Whether `site` is the one of the pair that sends the lock: who chose the other; the smaller id if both did."""
    return peer in chosen and (site < peer or site not in chosen_by_peer)


def sign_keys(signer: Signer, attempt: Attempt, keys: PairKeys) -> PairKeys:
    """`keys` under the signature of their site."""
    return replace(keys, signature=signer.sign(*_keys_statement(attempt, keys)))


def verify_keys(attempt: Attempt, keys: PairKeys) -> None:
    """Accept only keys that a site of the cohort signed for this attempt. Errors: Refusal E_SET, E_KEY, E_SIG."""
    if keys.site not in attempt.cohort or keys.number != attempt.number:
        raise Refusal(Code.E_SET, "Keys refused", "their site was not asked in this attempt", "Relay its own keys")
    if {keys.kem is not None, keys.box_kem is not None} != {attempt.session.suite == 2}:
        raise Refusal(Code.E_KEY, "Keys refused", "they are not of the session's suite", "Use the rules' suite")
    verify(attempt.manifest.site(keys.site).identity, keys.signature, *_keys_statement(attempt, keys))


def set_digest(attempt: Attempt, survivors: Sequence[int]) -> bytes:
    """Digest of a set of survivors, by ascending site, in this attempt."""
    return hashlib.sha256(_SET + attempt.context + _ids(survivors)).digest()


def endorse(signer: Signer, attempt: Attempt, survivors: Sequence[int]) -> bytes:
    """A site's signature over the set of survivors."""
    return signer.sign(_AGREE, attempt.context, set_digest(attempt, survivors))


def verify_endorsement(attempt: Attempt, survivors: Sequence[int], endorsement: Endorsement) -> None:
    """Accept only a survivor's signature over this very set. Errors: Refusal E_SET, E_SIG."""
    if endorsement.site not in survivors:
        raise Refusal(Code.E_SET, "Signature refused", "its site is no survivor", "Relay those of survivors")
    identity = attempt.manifest.site(endorsement.site).identity
    verify(identity, endorsement.signature, _AGREE, attempt.context, set_digest(attempt, survivors))


def _chosen(context: bytes, cohort: tuple[int, ...], degree: int, by: tuple[int, bytes]) -> tuple[int, ...]:
    """The first `degree` of the cohort but the site itself, sorted by a keystream that context, site and seed fix."""
    site, seed = by
    others = [other for other in cohort if other != site]
    buffer = bytearray(8 * len(others) + 16)
    keystream(hashlib.sha256(_GRAPH + context + _le(site) + seed).digest())(bytes(8 * len(others)), buffer)
    order = np.argsort(np.frombuffer(buffer, "<u8", len(others)), kind="stable")[:degree]
    return tuple(others[place] for place in order.tolist())


def _keys_statement(attempt: Attempt, keys: PairKeys) -> tuple[bytes, ...]:
    kems = hashlib.sha256((keys.kem or b"") + (keys.box_kem or b"")).digest()
    fixed = _le(keys.site) + keys.exchange + keys.box_exchange + keys.seed + keys.self_digest
    return _KEYS, attempt.context, fixed, kems


def _ids(sites: Sequence[int]) -> bytes:
    return b"".join(map(_le, sites))


def _le(number: int) -> bytes:
    return struct.pack("<Q", number)

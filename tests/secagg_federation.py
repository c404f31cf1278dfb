"""A federation for tests of secure aggregation: sites with stores in memory, and one round played in process."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from client.keystore import SqliteKeyStore
from client.recovery import deal, keep, own_box, release
from client.secagg import enrol, mask, masked_report, unmask
from common.identity import Signer
from common.randomness import child
from common.secagg import Aggregation, IntegerCodec, Manifest, Rules, SiteEntry, Sum
from common.secagg.codec import Codec
from common.secagg.wire import MaskedReport, RoundKeys, SessionRecord, ShareRelease
from server.dealing import Dealing
from server.enrolment import Opening, open_session
from server.recovery import Recovering
from server.secagg import Collecting, Unmasking

JOB = hashlib.sha256(b"job").digest()
RULES = Rules(unmaskers_min=2, quorum_min=2, orgs_min=1, sites_max=16, corrupt_max=1, overlap_min=1)
REGULAR = replace(RULES, unmaskers_min=6, quorum_min=8, corrupt_max=2, masks_each=4)
SHARING = replace(RULES, unmaskers_min=5, corrupt_max=2, lost_max=1, shares_min=4)


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def signer(*path: object) -> Signer:
    return Signer.from_seed(digest("signer", *path))


def entry(number: int, org: str | None = None) -> SiteEntry:
    return SiteEntry(
        id=number,
        name=f"clinic-{number}",
        org=org or f"org-{number}",
        identity=signer(number).public,
        node=f"ecdsa-sha2-nistp384 AAAA{number}",
        nominal_records=100,
    )


def manifest_of(
    count: int,
    rules: Rules = RULES,
    unmaskers: Sequence[int] | None = None,
    orgs: Mapping[int, str] | None = None,
) -> Manifest:
    """Sites 1 to `count`; all may unmask, or just as many as a session has if each masks for some of them."""
    if rules.masks_each and unmaskers is None:
        unmaskers = range(1, rules.unmaskers_min + 1)
    return Manifest(
        federation="test",
        version=1,
        coordinator=signer("coordinator").public,
        sites=tuple(entry(number, (orgs or {}).get(number)) for number in range(1, count + 1)),
        unmaskers=tuple(unmaskers or range(1, count + 1)),
        rules=rules,
        salt=digest("salt") if rules.masks_each else b"",
    )


@dataclass
class Federation:
    """Everything that a test may take apart: sites' stores, session, keys.

    colluding  sites report whatever they are asked for, and remember nothing of it
    """

    manifest: Manifest
    stores: dict[int, SqliteKeyStore]
    session: SessionRecord
    opening: Opening
    codec: Codec
    reports: dict[int, MaskedReport] = field(default_factory=dict)
    colluding: bool = False

    @classmethod
    def open(
        cls,
        count: int = 5,
        *,
        rules: Rules = RULES,
        codec: Codec | None = None,
        orgs: Mapping[int, str] | None = None,
        numbers: int = 4,
    ) -> Federation:
        manifest = manifest_of(count, rules, orgs=orgs)
        stores = {number: SqliteKeyStore.volatile(signer(number)) for number in manifest.ids}
        made = codec or IntegerCodec(dimension=9, sites_max=16)
        return cls(manifest, stores, *enrolled_of(manifest, stores, bytes(32), numbers), made)

    def again(self, sid: bytes, numbers: int = 4) -> Federation:
        """The same sites under a new session."""
        session, opening = enrolled_of(self.manifest, self.stores, sid, numbers)
        return replace(self, session=session, opening=opening, reports={})

    def aggregation(self, number: int = 0, binding: bytes | None = None) -> Aggregation:
        return Aggregation(
            manifest=self.manifest,
            session=self.session,
            number=number,
            binding=binding or digest("model", self.session.sid, number),
            ring=self.codec.ring,
        )

    def keys(self, number: int = 0) -> tuple[RoundKeys, ...]:
        return self.opening.keys(number)

    def report(self, site: int, aggregation: Aggregation, vector: NDArray[np.int64] | None = None) -> MaskedReport:
        assert isinstance(self.codec, IntegerCodec)
        vector = np.full(self.codec.dimension, site) if vector is None else vector
        keys, encoded = self.keys(aggregation.number), self.codec.encode(vector)
        if self.colluding:
            own = X25519PrivateKey.generate()
            self.reports[site] = masked_report(signer(site), aggregation, keys, encoded, own)
        else:
            self.reports[site] = mask(self.stores[site], aggregation, keys, encoded)
        return self.reports[site]

    def collected(
        self, number: int = 0, sites: Collection[int] | None = None, binding: bytes | None = None
    ) -> Unmasking:
        """Reports of `sites`, each a vector of its own id, closed."""
        aggregation = self.aggregation(number, binding)
        state = Collecting.open(aggregation, self.manifest.ids)
        for site in sites or self.manifest.ids:
            state = state.receive(site, self.report(site, aggregation))
        return state.close()

    def answered(self, state: Unmasking, sites: Collection[int]) -> Unmasking:
        """With the masks of these unmasking sites taken away."""
        for unmasker in sites:
            total = unmask(self.stores[unmasker], state.aggregation, state.members(unmasker))
            state = state.receive(unmasker, total)
        return state

    def opened(self, state: Unmasking) -> Sum:
        return self.answered(state, self.session.unmaskers).open(self.codec)

    def released(self, state: Recovering, holder: int) -> ShareRelease:
        aggregation, answered = state.unmasking.aggregation, state.unmasking.set_digest(holder)
        return release(self.stores[holder], aggregation, answered, state.lost)

    def recovered(self, state: Unmasking, lost: Collection[int]) -> Unmasking:
        """All but the lost unmasking sites answer and then release their shares of those."""
        state = self.answered(state, [site for site in self.session.unmaskers if site not in lost])
        recovering = Recovering.open(self.opening, state)
        for holder in sorted(recovering.missing):
            recovering = recovering.receive(holder, self.released(recovering, holder))
        for site in lost:
            state = recovering.recover(state, site)
        return state


def enrolled_of(
    manifest: Manifest, stores: dict[int, SqliteKeyStore], sid: bytes, numbers: int
) -> tuple[SessionRecord, Opening]:
    draw = child(1, "unmaskers")
    session = open_session(manifest, JOB, manifest.ids, range(numbers), sid=sid, draw=draw)
    opening = Opening(manifest, session)
    for site in session.unmaskers:
        keys = enrol(stores[site], manifest, session)
        opening = opening.receive(site, keys, own_box(stores[site], manifest, session))
    return session, shared(opening, stores) if manifest.rules.lost_max else opening


def shared(opening: Opening, stores: Mapping[int, SqliteKeyStore]) -> Opening:
    """With shares of all round seeds dealt and kept."""
    manifest, session, dealing = opening.manifest, opening.session, Dealing(opening)
    for site in session.unmaskers:
        dealing = dealing.receive(site, deal(stores[site], manifest, session, dealing.boxes))
    for site in session.unmaskers:
        dealing = dealing.confirm(site, keep(stores[site], manifest, session, dealing.meant_for(site)))
    return dealing.close()

"""A federation for tests of pairwise masks: sites in memory, and an attempt played stage by stage in process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from client.keystore import SqliteKeyStore
from client.pairing import Pairing
from common.secagg import IntegerCodec, Manifest, Rules, Sum
from common.secagg.codec import Codec, Encoded
from common.secagg.pairwise.attempt import Attempt
from common.secagg.pairwise.wire import PairSession
from server.pairwise.revealing import Revealing
from server.pairwise.stages import Advertising, Agreeing, Dealing, Masking
from tests.secagg_federation import JOB, digest, manifest_of, signer

RULES = Rules(unmaskers_min=2, quorum_min=2, orgs_min=1, sites_max=300, corrupt_max=1, overlap_min=1)


@dataclass
class PairFederation:
    """Everything that a test may take apart: sites' stores and stages, session, codec."""

    manifest: Manifest
    stores: dict[int, SqliteKeyStore]
    sites: dict[int, Pairing]
    session: PairSession
    codec: Codec
    quorum: int
    lost: dict[str, Collection[int]] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        count: int = 5,
        quorum: int = 4,
        *,
        rules: Rules = RULES,
        codec: Codec | None = None,
        orgs: Mapping[int, str] | None = None,
    ) -> PairFederation:
        manifest = manifest_of(count, rules, orgs=orgs)
        stores = {number: SqliteKeyStore.volatile(signer(number)) for number in manifest.ids}
        session = PairSession(sid=bytes(32), manifest=manifest.digest, job=JOB, suite=rules.suite)
        made = codec or IntegerCodec(dimension=9, sites_max=16)
        return cls(manifest, stores, {n: Pairing(s) for n, s in stores.items()}, session, made, quorum)

    def attempt(self, number: int = 0, cohort: Sequence[int] | None = None, binding: bytes | None = None) -> Attempt:
        return Attempt(
            manifest=self.manifest,
            session=self.session,
            number=number,
            cohort=tuple(cohort or self.manifest.ids),
            binding=binding or digest("model", self.session.sid, number),
            ring=self.codec.ring,
            quorum=self.quorum,
        )

    def encoded(self, site: int, vector: NDArray[np.int64] | None = None) -> Encoded:
        assert isinstance(self.codec, IntegerCodec)
        return self.codec.encode(np.full(self.codec.dimension, site) if vector is None else vector)

    def losing(self, **lost: Collection[int]) -> PairFederation:
        """The same sites, where these are gone from a stage on: advertise, deal, mask, agree or reveal."""
        return replace(self, lost=lost)

    def gone(self, stage: str) -> set[int]:
        stages = ["advertise", "deal", "mask", "agree", "reveal"]
        return {site for name in stages[: stages.index(stage) + 1] for site in self.lost.get(name, ())}

    def advertised(self, attempt: Attempt, vectors: Mapping[int, Encoded] | None = None) -> Dealing:
        state = Advertising(attempt)
        for site in set(attempt.cohort) - self.gone("advertise"):
            encoded = (vectors or {}).get(site) or self.encoded(site)
            state = state.receive(site, self.sites[site].advertise(attempt, encoded))
        return state.close()

    def dealt(self, state: Dealing) -> Masking:
        for site in set(state.asked) - self.gone("deal"):
            state = state.receive(site, self.sites[site].deal(*self.place(state.attempt), state.peers(site)))
        return state.close()

    def masked(self, state: Masking) -> Agreeing:
        for site in set(state.asked) - self.gone("mask"):
            state = state.receive(site, self.body(site, state))
        return state.close()

    def body(self, site: int, state: Masking) -> bytes:
        return self.sites[site].mask(*self.place(state.dealt.attempt), state.masks(site), state.incoming(site))

    def agreed(self, state: Agreeing) -> Revealing:
        place = self.place(state.before.dealt.attempt)
        for site in set(state.asked) - self.gone("agree"):
            state = state.receive(site, self.sites[site].agree(*place, state.survivors))
        return state.close()

    def revealed(self, state: Revealing) -> Revealing:
        for site in set(state.asked) - self.gone("reveal"):
            shares = self.sites[site].reveal(*self.place(state.attempt), state.endorsements(site))
            state = state.receive(site, shares)
        return state

    def played(self, attempt: Attempt, vectors: Mapping[int, Encoded] | None = None) -> Revealing:
        """All stages of one attempt."""
        masking = self.dealt(self.advertised(attempt, vectors))
        return self.revealed(self.agreed(self.masked(masking)))

    def place(self, attempt: Attempt) -> tuple[bytes, int]:
        return attempt.session.sid, attempt.number

    def sum(self, number: int = 0) -> Sum:
        return self.played(self.attempt(number)).open(self.codec)

"""Speed of pairwise masks at 10^6 parameters: CPU time of one thread, with a tenth of the sites lost after dealing."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

sys.path.insert(0, str(Path(__file__).parents[2]))

from common.frames import pack
from common.secagg import IntegerCodec, Rules
from common.secagg.codec import Encoded
from server.pairwise.revealing import Revealing
from server.pairwise.stages import Advertising, Agreeing, Dealing, Masking
from tests.pairwise_federation import PairFederation

SIZE, BITS = 10**6, 24
T = TypeVar("T")


class Clock:
    """CPU seconds by name, one entry a call."""

    def __init__(self) -> None:
        self.took: dict[str, list[float]] = defaultdict(list)

    def __call__(self, name: str, act: Callable[[], T]) -> T:
        start = time.process_time()
        result = act()
        self.took[name].append(time.process_time() - start)
        return result

    def show(self) -> None:
        for name, took in self.took.items():
            summed = sum(took) if name.startswith("server") else statistics.median(took)
            what = "in all" if name.startswith("server") else f"a site, median of {len(took)}"
            sys.stdout.write(f"  {name:<34}{1e3 * summed:10.1f} ms  {what}\n")


class Played:
    """One attempt, all of it for real, but that every vector is zero and lives in one place.

    A tenth of the sites is lost before masking; the quorum is 88 %, which with 63 corrupt of 1000 asks for 95 peers.
    """

    def __init__(self, sites: int, suite: Literal[1, 2]) -> None:
        corrupt = min(sites // 10, 63)  # a manifest counts on no more
        rules = Rules(
            unmaskers_min=corrupt + 1,
            quorum_min=2,
            orgs_min=1,
            sites_max=sites,
            corrupt_max=corrupt,
            overlap_min=0,
            suite=suite,
        )
        self.codec = IntegerCodec(dimension=SIZE, sites_max=sites, bits=BITS)
        self.federation = PairFederation.open(sites, sites * 88 // 100, rules=rules, codec=self.codec)
        self.alive = range(1, sites - sites // 10 + 1)
        self.attempt, self.clock = self.federation.attempt(), Clock()
        self.place, self.shape = self.federation.place(self.attempt), self.attempt.shape
        sys.stdout.write(f"n = {sites}, corrupt <= {corrupt}, suite {suite}: {self.shape}\n")

    def keys(self) -> Dealing:
        self.vector = self.federation.encoded(1)
        self.vector.lanes[:SIZE] = 0
        self.clean = self.vector.lanes.copy()
        state = Advertising(self.attempt)
        for site, pairing in self.federation.sites.items():
            encoded = Encoded(self.vector.ring, self.vector.lanes)
            keys = self.clock("site: keys", partial(pairing.advertise, self.attempt, encoded))
            state = self.clock("server: keys", partial(state.receive, site, keys))
        dealing = state.close()
        peers = self.clock("server: graph", lambda: dealing.neighbours).values()
        sys.stdout.write(f"  {statistics.mean(map(len, peers)):.0f} neighbours a site\n")
        return dealing

    def shares(self, state: Dealing) -> Masking:
        for site, pairing in self.federation.sites.items():
            peers = state.peers(site)
            parcels = self.clock("site: deal", partial(pairing.deal, *self.place, peers))
            state = self.clock("server: parcels", partial(state.receive, site, parcels))
        masking = state.close()
        got = len(pack(peers)) + len(pack(masking.incoming(site)))
        sys.stdout.write(
            f"  a site sends {len(pack(parcels)) / 1e3:.0f} kB beside its vector, gets {got / 1e3:.0f} kB\n"
        )
        return masking

    def vectors(self, state: Masking) -> Agreeing:
        for site in self.alive:
            act = partial(self.federation.sites[site].mask, *self.place, state.masks(site), state.incoming(site))
            body = self.clock("site: mask", act)
            self.vector.lanes[:] = self.clean
            state = self.clock("server: add vectors", partial(state.receive, site, body))
        return state.close()

    def signatures(self, state: Agreeing) -> Revealing:
        for site in state.asked:
            signature = self.clock(
                "site: agree", partial(self.federation.sites[site].agree, *self.place, state.survivors)
            )
            state = self.clock("server: signatures", partial(state.receive, site, signature))
        return state.close()

    def opened(self, state: Revealing) -> None:
        for site in state.asked:
            given = state.endorsements(site)
            shares = self.clock("site: reveal", partial(self.federation.sites[site].reveal, *self.place, given))
            state = self.clock("server: shares", partial(state.receive, site, shares))
        self.clock("server: rebuild secrets", lambda: state.false)
        opened = self.clock("server: open", partial(state.open, self.codec))
        assert opened.count == len(self.alive)
        assert not opened.values.any()
        self.clock.show()


def measure(sites: int, suite: Literal[1, 2]) -> None:
    """All stages of one attempt."""
    played = Played(sites, suite)
    played.opened(played.signatures(played.vectors(played.shares(played.keys()))))


if __name__ == "__main__":
    for count in [int(each) for each in sys.argv[1:]] or [100]:
        measure(count, 1)
        measure(count, 2)

"""One round of our secure aggregation, streamed: every site masks, the server adds, unmasking sites take masks away."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from client.keystore import SqliteKeyStore
from client.secagg import enrol, mask, unmask
from common.errors import Code, Refusal
from common.frames import pack, unpack
from common.identity import Signer
from common.randomness import SystemEntropy, child
from common.secagg import Aggregation, Manifest, RangeCodec, Rules, SiteEntry, lift
from common.secagg.wire import MaskedReport, MaskTotal, Member, SessionRecord
from server.enrolment import Opening, open_session
from server.secagg import Collecting, Unmasking
from simulations.bench.rows import Case, Row, Stopwatch, forget_peak, peak_mb

Step = Callable[..., None]
SEVERAL = 10**7  # parameters times sites up to which a round is cheap enough to be played several times
ROUNDS = 3
_LIMIT = 2**40
_JOB = hashlib.sha256(b"measurement").digest()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """m: unmasking sites, all of whom are needed; bits: b of the ring; suite: 1 or 2 of the rules."""

    m: int
    bits: int = 24
    suite: int = 2


@dataclass(frozen=True)
class _World:
    """Sites of a federation that lives for one measurement; only unmasking sites keep a store between messages."""

    manifest: Manifest
    signers: dict[int, Signer]
    stores: dict[int, SqliteKeyStore]
    opening: Opening
    codec: RangeCodec

    def aggregation(self, number: int) -> Aggregation:
        binding = hashlib.sha256(b"round %d" % number).digest()
        return Aggregation(
            manifest=self.manifest, session=self.session, number=number, binding=binding, ring=self.codec.ring
        )

    @property
    def session(self) -> SessionRecord:
        return self.opening.session


def measure(case: Case, settings: Settings, budget: float, step: Step) -> list[Row]:
    """Rows of site, unmasking site and server.

    budget  CPU seconds; a round that would take more is played with fewer sites, and what grows with the sites is
            multiplied: its rows say `computed`
    Errors: Refusal E_SUM_CHECK if an opened sum is not exactly the sum of what the sites encoded.
    """
    played = replace(case, n=min(case.n, max(settings.m, _affordable(case.d, budget))))
    world = _found(played, settings, sites_max=case.n)
    rounds = ROUNDS if case.d * case.n <= SEVERAL else 1
    forget_peak()
    watches: list[Stopwatch] = []
    sizes: dict[str, int] = {}
    for number in range(rounds):
        watch = Stopwatch()
        sizes = _round(world, played, number, watch, step)
        watches.append(watch)
    return _rows(case, settings, watches, sizes, case.reporting / played.reporting)


def _affordable(d: int, budget: float) -> int:
    """Sites whose round fits: about 40 ms each at 10^6 parameters, vectors and checks of this file included."""
    return max(2, int(budget / (0.04 * max(d, 10**5) / 10**6)))


def _rows(case: Case, settings: Settings, watches: list[Stopwatch], sizes: dict[str, int], scale: float) -> list[Row]:
    def row(role: str, seconds: float, repeats: int, **more: float) -> Row:
        return Row(
            peer="hushfed",
            role=role,  # type: ignore[arg-type]  # one of the three below
            d=case.d,
            n=case.n,
            m=settings.m,
            dropout=case.dropout,
            cpu_seconds=seconds,
            bytes_up=round(sizes[role]),
            repeats=repeats,
            computed=scale != 1.0 and role != "site",
            **more,  # type: ignore[arg-type]  # values of several types by name
        )

    site = min(watch.least["site"] for watch in watches)
    masks = min(watch.least["unmasking"] for watch in watches)
    server = min(watch.total["report"] * scale + watch.total["answers"] for watch in watches)
    down = round(sizes["members"] * scale)
    sizes = sizes | {"server": round(sizes["site"] * case.reporting + sizes["unmasking"] * settings.m)}
    return [
        row("site", site, round(case.reporting / scale) * len(watches)),
        row("unmasking", masks * scale, settings.m * len(watches), bytes_down=down),
        row("server", server, len(watches), peak_mb=peak_mb()),
    ]


def _found(case: Case, settings: Settings, sites_max: int) -> _World:
    """Manifest, stores of the unmasking sites, and their round keys."""
    signers = {number: Signer.generate() for number in range(1, case.n + 1)}
    rules = Rules(
        unmaskers_min=settings.m,
        quorum_min=2,
        orgs_min=1,
        sites_max=sites_max,
        corrupt_max=settings.m - 1,
        overlap_min=0,
        rounds_max=ROUNDS,
        suite=settings.suite,  # type: ignore[arg-type]  # checked by the manifest
    )
    sites = tuple(_entry(number, signer.public) for number, signer in signers.items())
    manifest = Manifest(
        federation="measurement",
        version=1,
        coordinator=Signer.generate().public,
        sites=sites,
        unmaskers=tuple(signers),
        rules=rules,
    )
    present = [number for place, number in enumerate(signers) if place not in case.lost]
    session = open_session(manifest, _JOB, present, range(ROUNDS), sid=os.urandom(32), draw=child(0, "unmaskers"))
    stores = {number: SqliteKeyStore.volatile(signers[number]) for number in session.unmaskers}
    opening = Opening(manifest, session)
    for number, store in stores.items():
        opening = opening.receive(number, enrol(store, manifest, session))
    codec = RangeCodec(dimension=case.d, bits=settings.bits, sites_max=sites_max, bound=1.0)
    return _World(manifest, signers, stores, opening, codec)


def _entry(number: int, identity: bytes) -> SiteEntry:
    return SiteEntry(
        id=number,
        name=f"site-{number}",
        org=f"org-{number}",
        identity=identity,
        node=f"ecdsa-sha2-nistp384 {number}",
        nominal_records=1,
    )


def _round(world: _World, case: Case, number: int, watch: Stopwatch, step: Step) -> dict[str, int]:
    """Play one round; bytes of each role's messages."""
    aggregation = world.aggregation(number)
    state = Collecting.open(aggregation, world.manifest.ids)
    expected, sizes = np.zeros(case.d, np.int64), dict[str, int]()
    for place, site in enumerate(world.manifest.ids):
        if place in case.lost:
            continue
        sent = _report(world, aggregation, site, expected, watch)
        sizes["site"] = len(sent)
        with watch("report"):
            state = state.receive(site, unpack(MaskedReport, sent, _LIMIT))
        step(1)
    with watch("answers"):
        closed = state.close()
    values = _opened(world, closed, watch, sizes)
    if not np.array_equal(values, expected):
        raise Refusal(Code.E_SUM_CHECK, "Sum refused", "it is not the sum of what was encoded", "Report this fault")
    return sizes


def _report(world: _World, aggregation: Aggregation, site: int, expected: NDArray[np.int64], watch: Stopwatch) -> bytes:
    """One site's message; what it encoded is added to `expected`."""
    vector = np.random.default_rng(site).uniform(-1.0, 1.0, expected.size).astype(np.float32)
    store = world.stores.get(site) or SqliteKeyStore.volatile(world.signers[site])
    entropy = SystemEntropy()
    with watch("encode"):
        encoded = world.codec.encode(vector, entropy)
    expected += lift(encoded.ring, encoded.lanes)[: expected.size]
    with watch("mask"):
        sent = pack(mask(store, aggregation, world.opening.keys(aggregation.number), encoded))
    watch.add("site", watch.last["encode"] + watch.last["mask"])
    if site not in world.stores:
        store.close()
    return sent


def _opened(world: _World, closed: Unmasking, watch: Stopwatch, sizes: dict[str, int]) -> NDArray[np.int64]:
    """The opened sum; every unmasking site answers."""
    for site in world.session.unmaskers:
        with watch("answers"):
            question = pack(closed.members(site))
        with watch("unmasking"):
            members = unpack(tuple[Member, ...], question, _LIMIT)
            sent = pack(unmask(world.stores[site], closed.aggregation, members))
        with watch("answers"):
            closed = closed.receive(site, unpack(MaskTotal, sent, _LIMIT))
        sizes["members"], sizes["unmasking"] = len(question), len(sent)
    with watch("answers"):
        return closed.open(world.codec).values

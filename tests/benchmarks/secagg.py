"""Speed and memory of secure aggregation at 10^6 parameters: CPU time of one thread, the best of several."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from client.keystore import SqliteKeyStore
from client.recovery import deal, keep, own_box
from client.secagg import enrol, mask, masked_report, unmask
from common.frames import pack as pack_frame
from common.privacy.distributed import SiteMechanism
from common.randomness import SystemEntropy
from common.secagg import DistributedCodec, IntegerCodec, RangeCodec, Rules, pack, unpack
from common.secagg.codec import Encoded
from common.secagg.discrete import discrete_gaussian, plan
from common.secagg.rotation import Rotation
from common.secagg.rounding import round_within, rounded_norm
from common.secagg.skellam import skellam
from common.secagg.statements import member_of
from common.secagg.wire import Parcel
from server.dealing import Dealing
from server.enrolment import Opening
from server.recovery import Recovering
from server.secagg import Accumulator, Collecting, Received, Unmasking
from tests.secagg_federation import Federation, enrolled_of, manifest_of, signer

SIZE, UNMASKERS, SITES = 10**6, 5, 100


def best(act: Callable[[], Any], times: int = 10) -> float:
    """Least CPU milliseconds of `times` runs."""
    took = []
    for _ in range(times):
        start = time.process_time()
        act()
        took.append(time.process_time() - start)
    return 1e3 * min(took)


def show(what: str, milliseconds: float, target: str = "") -> None:
    sys.stdout.write(f"{what:<58}{milliseconds:9.2f} ms  {target}\n")


def federation_of(sites: int, bits: int) -> Federation:
    rules = rules_of(sites, UNMASKERS, 0)
    return Federation.open(
        sites, rules=rules, codec=IntegerCodec(dimension=SIZE, sites_max=sites, bits=bits), numbers=40
    )


def rules_of(sites: int, unmaskers: int, lost: int) -> Rules:
    return Rules(
        unmaskers_min=unmaskers,
        quorum_min=2,
        orgs_min=1,
        sites_max=sites,
        corrupt_max=unmaskers - 2 * lost - 1,
        overlap_min=1,
        lost_max=lost,
        shares_min=unmaskers - lost if lost else 0,
    )


def sites(federation: Federation) -> None:
    """One report: keys checked, masked, packed, signed."""
    vector, entropy = np.random.default_rng(0).uniform(-1, 1, SIZE).astype(np.float32), SystemEntropy()
    for bits in (16, 20, 24, 28, 32):
        codec = RangeCodec(dimension=SIZE, bits=bits, sites_max=SITES, bound=1.0)
        show(f"site: encode, b = {bits}", best(lambda codec=codec: codec.encode(vector, entropy), 20), "target 1.5")
    values, numbers = np.ones(SIZE, np.int64), iter(range(40))

    def report() -> None:
        number = next(numbers)
        encoded = federation.codec.encode(values)  # type: ignore[attr-defined]  # this federation's is an IntegerCodec
        start = time.process_time()
        mask(
            federation.stores[federation.manifest.ids[-1]],
            federation.aggregation(number),
            federation.keys(number),
            encoded,
        )
        took.append(time.process_time() - start)

    took: list[float] = []
    for _ in range(12):
        report()
    show(f"site: mask, m = {UNMASKERS}, suite 2, b = 24", 1e3 * min(took), "target 8")


def coordinator_and_unmasker(federation: Federation) -> None:
    """Reports of all sites added, then one answer of an unmasking site."""
    aggregation = federation.aggregation(39)
    tracemalloc.start()
    state, took = Collecting.open(aggregation, federation.manifest.ids), []
    for site in federation.manifest.ids:
        report = federation.report(site, aggregation, np.full(SIZE, site))
        federation.reports.clear()
        start = time.process_time()
        state = state.receive(site, report)
        took.append(time.process_time() - start)
    show("server: receive and add one report, median", 1e3 * float(np.median(took)))
    show(f"server: receive and add {SITES} reports", 1e3 * sum(took), "target 350 with the final step")
    del report
    held = tracemalloc.get_traced_memory()[0] / 2**20
    tracemalloc.stop()
    sys.stdout.write(f"server: held after {SITES} reports {held:36.1f} MiB, one vector is {4 * SIZE / 2**20:.1f}\n")
    closed = state.close()
    site = federation.session.unmaskers[0]
    members = closed.members(site)
    start = time.process_time()
    unmask(federation.stores[site], aggregation, members)
    show(f"unmasking site: one answer, n = {SITES}, suite 2", 1e3 * (time.process_time() - start), "target 60")
    start = time.process_time()
    federation.opened(closed)
    show(f"all {UNMASKERS} answers (one repeated) and the final step", 1e3 * (time.process_time() - start))


def recovery() -> None:
    """Shares of a session, then one lost unmasking site recovered."""
    size, numbers = 8, 64
    codec = IntegerCodec(dimension=SIZE, sites_max=SITES, bits=24)
    made = Federation.open(SITES, rules=rules_of(SITES, size, 1), codec=codec, numbers=numbers)
    session = made.session
    fresh, site = enrolled(made), session.unmaskers[0]
    dealing, took = Dealing(fresh.opening), []
    for dealer in session.unmaskers:
        start = time.process_time()
        parcels = deal(fresh.stores[dealer], made.manifest, session, dealing.boxes)
        took.append(time.process_time() - start)
        dealing = dealing.receive(dealer, parcels)
    show(f"unmasking site: deal shares, m = {size}, {numbers} numbers", 1e3 * min(took), weight(parcels))
    asked = dealing.meant_for(site)
    start = time.process_time()
    keep(fresh.stores[site], made.manifest, session, asked)
    show(
        f"unmasking site: keep shares, m = {size}, {numbers} numbers",
        1e3 * (time.process_time() - start),
        weight(asked),
    )
    lost = session.unmaskers[0]
    closed = made.answered(made.collected(), session.unmaskers[1:])
    recovering = Recovering.open(made.opening, closed)
    for holder in sorted(recovering.missing):
        recovering = recovering.receive(holder, made.released(recovering, holder))
    start = time.process_time()
    recovering.recover(closed, lost).open(codec)
    show(f"server: one site recovered, n = {SITES}, and the sum", 1e3 * (time.process_time() - start))


def regular(masks: int, sites: int = 1000, unmaskers: int = 32) -> None:
    """A report and an answer where each site masks for some of many unmasking sites; 0: for all of them.

    The reports are signed, with fresh keys and ciphertexts, but of nothing: unmasking sites never see the vectors.
    """
    rules = Rules(
        unmaskers_min=unmaskers,
        quorum_min=600,
        orgs_min=1,
        sites_max=sites,
        corrupt_max=3,
        overlap_min=0,
        rounds_max=8,
        masks_each=masks,
    )
    start = time.process_time()
    manifest = manifest_of(sites, rules, range(1, unmaskers + 1))
    checked = 1e3 * (time.process_time() - start)
    stores = {number: SqliteKeyStore.volatile(signer(number)) for number in manifest.ids}
    session, opening = enrolled_of(manifest, stores, bytes(32), 6)
    codec = IntegerCodec(dimension=SIZE, sites_max=sites, bits=24)
    made = Federation(manifest, stores, session, opening, codec)
    what, took = f"m = {unmaskers}, k = {masks or unmaskers}", []
    show(f"manifest with its checks, {what}", checked, f"smallest sum {manifest.smallest_sum(600)} of 600")
    for number in range(5):
        encoded, about = codec.encode(np.ones(SIZE, np.int64)), made.aggregation(number)
        start = time.process_time()
        report = mask(stores[sites], about, made.keys(number), encoded)
        took.append(time.process_time() - start)
    weighed = (len(pack_frame(report)) - len(report.body)) / 1e3
    show(f"site: mask, {what}, suite 2, b = 24", 1e3 * min(took), f"{weighed:.1f} kB beside the vector")
    about = made.aggregation(5)
    received = {}
    for number in manifest.ids:
        empty = Encoded(about.ring, about.ring.zeros()[:0])
        small = masked_report(stores[number].identity, about, made.keys(5), empty, X25519PrivateKey.generate())
        received[number] = Received(member_of(small, None), small.ciphertexts)
    closed = Unmasking(about, Accumulator(about.ring), received)
    for site in session.unmaskers[:3]:
        members = closed.members(site)
        start = time.process_time()
        unmask(stores[site], about, members)
        size = sum(len(pack_frame(member)) for member in members) / 1e6
        took_here = 1e3 * (time.process_time() - start)
        show(f"unmasking site: one answer, n = {sites}, {what}", took_here, f"{len(members)} reports, {size:.2f} MB")


def weight(parcels: Sequence[Parcel]) -> str:
    return f"{sum(len(pack_frame(parcel)) for parcel in parcels) / 1e3:.1f} kB"


def enrolled(made: Federation) -> Federation:
    """The same session, as it is before shares are dealt."""
    stores = {site: SqliteKeyStore.volatile(made.stores[site].identity) for site in made.session.unmaskers}
    opening = Opening(made.manifest, made.session)
    for site, store in stores.items():
        keys = enrol(store, made.manifest, made.session)
        opening = opening.receive(site, keys, own_box(store, made.manifest, made.session))
    return replace(made, stores=stores, opening=opening)


def distributed() -> None:
    """Rotation, rounding within a norm, and whole contributions of distributed differential privacy."""
    vector, entropy = np.random.default_rng(0).normal(size=1 << 20), SystemEntropy()
    rotation, norm = Rotation(1 << 20), float(np.linalg.norm(vector))
    show("rotation of 2^20", best(lambda: rotation.turn(vector, b"seed")), "target 15")
    show("and back", best(lambda: rotation.back(vector, b"seed")), "target 15")
    most = rounded_norm(norm, 1 << 20)
    show("rounding of 2^20 within a norm", best(lambda: round_within(vector, most, entropy)), "3 measured earlier")
    for noise in ("discrete-gaussian", "skellam"):
        codec = codec_of(noise)
        shown = f"site: encode with noise, b = 20, sigma = {codec.sigma:.0f}, {noise}"
        show(shown, best(lambda codec=codec: codec.encode(vector[:SIZE], b"seed", entropy), 5))
        opened = codec.open_sum(codec.encode(vector[:SIZE], b"seed", entropy).lanes, 1)
        show("server: open and turn back", best(lambda codec=codec, opened=opened: codec.total(opened, b"seed"), 5))
    for sigma in (3.0, 300.0, 3e3, 3e4):
        start = time.process_time()
        skellam(sigma, 1, entropy)
        built = 1e3 * (time.process_time() - start)
        took = best(lambda sigma=sigma: skellam(sigma, SIZE, entropy), 4)
        show(f"10^6 Skellam integers, sigma = {sigma:g}", took, f"target 130; table made once in {built:.0f} ms")


def codec_of(noise: Literal["discrete-gaussian", "skellam"]) -> DistributedCodec:
    """Of 100 sites, 20 bits and a noise multiplier of 5."""
    return SiteMechanism(
        noise=noise,
        dimension=SIZE,
        metrics=0,
        metric_share=0.0,
        clip=1.0,
        bits=20,
        sites_max=SITES,
        quorum=SITES,
        colluding=0,
        noise_multiplier=5.0,
    ).codec


def vectors() -> None:
    """Packing by width, and noise by scale."""
    for bits in (16, 20, 24, 28, 32):
        ring = IntegerCodec(dimension=SIZE, sites_max=2, bits=bits).ring
        lanes = ring.zeros()
        body = pack(ring, lanes)
        target = {20: "target 2.3", 24: "target 0.9"}.get(bits, "")
        show(f"pack, b = {bits}", best(lambda ring=ring, lanes=lanes: pack(ring, lanes)), target)
        show(f"unpack, b = {bits}", best(lambda ring=ring, body=body: unpack(ring, body)), target)
    entropy = SystemEntropy()
    for sigma in (3.0, 300.0, 3e4, 1e5, 1e6, 1e7):
        start = time.process_time()
        plan(sigma)
        built = 1e3 * (time.process_time() - start)
        took = best(lambda sigma=sigma: discrete_gaussian(sigma, SIZE, entropy), 4)
        show(f"10^6 discrete Gaussians, sigma = {sigma:g}", took, f"target 130; tables made once in {built:.0f} ms")


if __name__ == "__main__":
    made = federation_of(SITES, 24)
    sites(made)
    coordinator_and_unmasker(made)
    recovery()
    for masks in (16, 0):
        regular(masks)
    vectors()
    distributed()

"""Vectors: what any other implementation of `alm-v1` must compute, bit by bit (tests/vectors/secagg.json)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from client.secagg import mask_total, masked_report, round_keys
from common.config import canonical
from common.identity import Signer
from common.randomness import ReplayEntropy
from common.secagg import (
    Aggregation,
    IntegerCodec,
    Manifest,
    Ring,
    RoundSeed,
    Rules,
    SiteEntry,
    add_masks,
    context_digest,
    lower,
    pack,
    parse_manifest,
    record_digest,
    reduce,
    sealed,
)
from common.secagg.discrete import discrete_gaussian
from common.secagg.keys import Pair, agree, decapsulate, public
from common.secagg.parcels import box_key, opened_parcel, sealed_parcel
from common.secagg.regular import maskers, order_of
from common.secagg.shamir import from_coefficients, join
from common.secagg.statements import sign_release
from common.secagg.wire import SessionRecord, ShareRelease
from server.secagg import Collecting

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "secagg.json").read_text())


def of_hex(table: dict[str, str], name: str) -> bytes:
    return bytes.fromhex(table[name])


def masked(key: bytes, integers: list[int], bits: int) -> str:
    """The integers, padded to whole bytes, under one mask; packed bytes of the integers alone."""
    ring = Ring(bits, -(-len(integers) // 4) * 4)
    lanes = lower(ring, np.array(integers + [0] * (ring.lanes - len(integers)), np.int64))
    add_masks([key], lanes)
    return pack(ring, reduce(ring, lanes))[: len(integers) * bits // 8].hex()


def primitives(given: dict[str, Any]) -> dict[str, Any]:
    """Key agreement, context, mask key, keystream and one masked vector in suite 1."""
    site_key = X25519PrivateKey.from_private_bytes(of_hex(given, "esk"))
    unmasker_key = X25519PrivateKey.from_private_bytes(of_hex(given, "hsk"))
    context = context_digest(*(of_hex(given, name) for name in ("h_F", "h_R")), given["r"], of_hex(given, "h_model"))
    shared = agree(site_key, public(unmasker_key))
    pair = Pair(
        context=context,
        site=given["i"],
        unmasker=given["c"],
        exchange=public(site_key),
        unmasker_exchange=public(unmasker_key),
        ciphertext=None,
    )
    key = pair.mask_key(shared)
    return {
        "epk": public(site_key).hex(),
        "hpk": public(unmasker_key).hex(),
        "ctx": context.hex(),
        "shared": shared.hex(),
        "k": key.hex(),
        "keystream": masked(key, [0] * 8, 32),
        "masked": masked(key, given["x"], 24),
        "masked_by_width": {
            str(bits): masked(key, [5, -5, 2**15 - 1, -(2**15)], bits) for bits in (16, 20, 24, 28, 32)
        },
    }


def hybrid(given: dict[str, Any]) -> dict[str, str]:
    """Round keys from a seed, and the mask key of suite 2 from a ciphertext."""
    seed = RoundSeed(of_hex(given, "rho"))
    kem = MLKEM768PrivateKey.from_seed_bytes(bytes(range(64)))
    site_key = X25519PrivateKey.from_private_bytes(of_hex(given, "esk"))
    ciphertext = of_hex(given, "ciphertext")
    shared = agree(seed.exchange, public(site_key)) + decapsulate(seed.kem, ciphertext)
    pair = Pair(
        context=of_hex(given, "ctx"),
        site=given["i"],
        unmasker=given["c"],
        exchange=public(site_key),
        unmasker_exchange=public(seed.exchange),
        ciphertext=ciphertext,
    )
    return {
        "exchange": public(seed.exchange).hex(),
        "kem_sha256": hashlib.sha256(public(seed.kem)).hexdigest(),
        "kem_sha256_of_seed_00_to_3f": hashlib.sha256(public(kem)).hexdigest(),
        "shared": shared.hex(),
        "k": pair.mask_key(shared).hex(),
    }


RULES = Rules(
    unmaskers_min=2, quorum_min=2, orgs_min=1, sites_max=4, corrupt_max=1, overlap_min=1, rounds_max=8, suite=1
)


def manifest_of(
    signers: dict[int, Signer], unmaskers: tuple[int, ...] = (1, 2), rules: Rules = RULES, salt: bytes = b""
) -> Manifest:
    return Manifest(
        federation="vectors",
        version=1,
        coordinator=bytes([7] * 32),
        sites=tuple(
            SiteEntry(
                id=number,
                name=f"site-{number}",
                org=f"org-{number}",
                identity=signer.public,
                node=f"ecdsa-sha2-nistp384 key-{number}",
                nominal_records=100,
            )
            for number, signer in signers.items()
        ),
        unmaskers=unmaskers,
        rules=rules,
        salt=salt,
    )


def signers_of(given: dict[str, Any]) -> dict[int, Signer]:
    return {int(site): Signer.from_seed(bytes.fromhex(seed)) for site, seed in given["identities"].items()}


def whole_round(given: dict[str, Any]) -> dict[str, Any]:
    """Three sites, two of them unmask, suite 1, from fixed secrets: every byte that crosses the wire."""
    signers = signers_of(given)
    found = played(given, signers, manifest_of(signers))
    return {**found, "h_S": found["h_S"]["1"]}


def regular_round(given: dict[str, Any]) -> dict[str, Any]:
    """Four sites, three of them unmask, each site masks for two of these."""
    signers, rules = signers_of(given), replace(RULES, unmaskers_min=3, quorum_min=4, masks_each=2)
    manifest = manifest_of(signers, (1, 2, 3), rules, of_hex(given, "salt"))
    chosen = {str(site): list(manifest.lots.maskers((1, 2, 3), site)) for site in signers}
    return {**played(given, signers, manifest), "maskers": chosen}


def lots(given: dict[str, Any]) -> dict[str, Any]:
    """The order of all unmasking sites by site, and the first of them that are in a session."""
    unmaskers, chosen = tuple(given["unmaskers"]), tuple(given["chosen"])
    return {
        "orders": {str(site): list(order_of(of_hex(given, "h_F"), unmaskers, site)) for site in given["sites"]},
        "maskers": {
            str(site): list(maskers(of_hex(given, "h_F"), unmaskers, chosen, given["k"], site))
            for site in given["sites"]
        },
    }


def played(given: dict[str, Any], signers: dict[int, Signer], manifest: Manifest) -> dict[str, Any]:
    session = SessionRecord(
        sid=of_hex(given, "sid"),
        manifest=manifest.digest,
        job=of_hex(given, "job"),
        unmaskers=manifest.unmaskers,
        first=0,
        count=8,
        suite=1,
    )
    codec = IntegerCodec(dimension=3, sites_max=4, bits=24)
    aggregation = Aggregation(
        manifest=manifest, session=session, number=5, binding=of_hex(given, "h_model"), ring=codec.ring
    )
    seeds = {int(site): RoundSeed(bytes.fromhex(seed)) for site, seed in given["rho"].items()}
    keys = [round_keys(signers[site], session, site, 5, seeds[site]) for site in manifest.unmaskers]
    state, reports = Collecting.open(aggregation, signers), {}
    for site, signer in signers.items():
        exchange = X25519PrivateKey.from_private_bytes(bytes.fromhex(given["esk"][str(site)]))
        encoded = codec.encode(np.array(given["x"][str(site)], np.int64))
        reports[site] = masked_report(signer, aggregation, keys, encoded, exchange)
        state = state.receive(site, reports[site])
    closed = state.close()
    totals = {
        site: mask_total(signers[site], aggregation, seeds[site], closed.members(site)) for site in manifest.unmaskers
    }
    return {
        "manifest": canonical(json.loads(sealed(manifest, signers[1]))).decode(),
        "h_F": manifest.digest.hex(),
        "h_R": record_digest(session).hex(),
        "ctx": aggregation.context.hex(),
        "key_signatures": [key.signature.hex() for key in keys],
        "reports": {str(site): [report.body.hex(), report.signature.hex()] for site, report in reports.items()},
        "h_S": {str(site): total.set_digest.hex() for site, total in totals.items()},
        "totals": {str(site): [total.body.hex(), total.signature.hex()] for site, total in totals.items()},
        "sum": closed.unmask(totals.values(), codec).values.tolist(),
    }


def noise(given: dict[str, Any]) -> dict[str, list[int]]:
    """Draws of the discrete Gaussian from a replayed stream, by sigma."""
    return {
        str(sigma): discrete_gaussian(sigma, 8, ReplayEntropy(given["seed"], "vectors")).tolist()
        for sigma in given["sigmas"]
    }


def shamir(given: dict[str, Any]) -> dict[str, Any]:
    """Shares of a secret by its polynomial, and the secret that some of them give."""
    shares = from_coefficients(of_hex(given, "secret"), given["coefficients"], given["holders"])
    return {
        "shares": [each.hex() for each in shares],
        "joined": join({holder: shares[holder - 1] for holder in given["joined_by"]}).hex(),
    }


def parcel(given: dict[str, Any]) -> dict[str, Any]:
    """Shares of two numbers from a dealer to a holder in suite 1, and the release of one of them."""
    signers = {int(site): Signer.from_seed(bytes.fromhex(seed)) for site, seed in given["identities"].items()}
    session = SessionRecord(
        sid=of_hex(given, "sid"),
        manifest=of_hex(given, "h_F"),
        job=of_hex(given, "job"),
        unmaskers=(1, 2, 3),
        first=7,
        count=2,
        suite=1,
    )
    secret = RoundSeed(of_hex(given, "box"))
    box = box_key(signers[2], session, 2, secret)
    shares = [bytes.fromhex(each) for each in given["shares"]]
    one_time = X25519PrivateKey.from_private_bytes(of_hex(given, "esk"))
    sealed_shares = sealed_parcel(signers[1], session, 1, box, shares, one_time=one_time)
    assert list(opened_parcel(session, secret, sealed_shares)) == shares
    unsigned = ShareRelease(
        holder=2, number=8, set_digest=of_hex(given, "h_S"), lost=(1,), shares=(shares[1],), signature=bytes(64)
    )
    return {
        "box": [box.exchange.hex(), box.signature.hex()],
        "body": sealed_shares.body.hex(),
        "commitments": [each.hex() for each in sealed_shares.commitments],
        "parcel_signature": sealed_shares.signature.hex(),
        "release_signature": sign_release(signers[2], of_hex(given, "ctx"), unsigned).signature.hex(),
    }


PARTS = {
    "primitives": primitives,
    "hybrid": hybrid,
    "whole_round": whole_round,
    "lots": lots,
    "regular_round": regular_round,
    "noise": noise,
    "shamir": shamir,
    "parcel": parcel,
}


@pytest.mark.parametrize("part", PARTS)
def test_computed_values_equal_the_vectors(part):
    assert PARTS[part](VECTORS[part]["given"]) == VECTORS[part]["expected"]


def test_the_sum_of_the_vectors_round_is_the_sum_of_its_vectors():
    given = VECTORS["whole_round"]["given"]["x"]
    assert VECTORS["whole_round"]["expected"]["sum"] == np.sum(list(given.values()), axis=0).tolist()


def test_the_manifest_of_the_vectors_is_read_and_gives_their_digest():
    expected = VECTORS["whole_round"]["expected"]
    governance = Signer.from_seed(bytes.fromhex(VECTORS["whole_round"]["given"]["identities"]["1"]))
    manifest = parse_manifest(expected["manifest"].encode() + b"\n", governance.public)
    assert manifest.digest.hex() == expected["h_F"]

"""Secure aggregation at a site: its own report is masked, and, if it unmasks, only one sum a number is opened.

No input or output: secrets and memory live in a `KeyStore`, which commits before a reply exists. A refused
order changes nothing. Source: anytrust late masking, `alm-v1`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from client.custody import Answer, KeyStore, Place
from common.errors import Code, Refusal
from common.identity import Signer
from common.secagg.codec import Encoded
from common.secagg.keys import Pair, RoundSeed, agree, encapsulate, public
from common.secagg.manifest import Manifest
from common.secagg.masks import add_masks, pack, reduce
from common.secagg.statements import (
    Aggregation,
    check_session,
    maskers_of,
    record_digest,
    set_digest,
    sign_keys,
    sign_report,
    sign_total,
    verify_keys,
    verify_member,
)
from common.secagg.totals import mask_sum
from common.secagg.wire import MaskedReport, MaskTotal, Member, RoundKeys, SessionRecord

_UNSIGNED = bytes(64)


def enrol(store: KeyStore, manifest: Manifest, session: SessionRecord) -> tuple[RoundKeys, ...]:
    """Round keys of this unmasking site for every number of `session`, their seeds stored first.

    Where the rules ask for shares of the seeds, the secret that others seal theirs with is stored beside them.
    The same order again gives the same keys while none of them is used.
    Errors: Refusal E_MANIFEST, E_POLICY (outside the rules, not asked to unmask, or another record under this
    sid), E_ROUND (the session is under way).
    """
    check_session(manifest, session)
    own, record = manifest.site_of(store.identity.public).id, record_digest(session)
    if own not in session.unmaskers:
        raise Refusal(Code.E_POLICY, "Enrolment refused", "the session does not name this site", "Ask those it names")
    check_pinned(store, session.sid, record)
    numbers = range(session.first, session.first + session.count)
    seeds = store.seeds(session.sid)
    if not seeds and store.pinned(session.sid) is None:  # a session whose seeds are erased gets no new ones
        seeds = {number: RoundSeed.generate() for number in numbers}
        place = Place(sid=session.sid, record=record, job=session.job, number=session.first, attempt=session.first)
        store.enrol(place, seeds, RoundSeed.generate() if manifest.rules.lost_max else None)
    if set(seeds) != set(numbers):
        raise Refusal(Code.E_ROUND, "Enrolment refused", "the session is under way", "Open another session")
    return tuple(round_keys(store.identity, session, own, number, seeds[number]) for number in numbers)


def round_keys(signer: Signer, session: SessionRecord, own: int, number: int, seed: RoundSeed) -> RoundKeys:
    """The public keys of one seed, signed."""
    kem = public(seed.kem) if session.suite == 2 else None
    unsigned = RoundKeys(unmasker=own, number=number, exchange=public(seed.exchange), kem=kem, signature=_UNSIGNED)
    return sign_keys(signer, session, unsigned)


def mask(store: KeyStore, aggregation: Aggregation, keys: Sequence[RoundKeys], encoded: Encoded) -> MaskedReport:
    """This site's report, which only all unmasking sites that it masks for can unmask together. Overwrites `encoded`.

    keys  of all unmasking sites of the session, in its order, for this number
    Guarantee: one report an attempt and one a binding, in any session and across restarts; both are used up before
    the masks exist.
    Errors: Refusal E_MANIFEST, E_POLICY (another record under this sid), E_ROUND (attempt reported before), E_MODEL
    (binding reported before), E_KEY, E_SIG (round keys), E_RANGE (vector of another ring).
    """
    session = aggregation.session
    own = aggregation.manifest.site_of(store.identity.public).id
    place = place_of(aggregation)
    check_pinned(store, session.sid, place.record)
    refuse_reported(store, place)
    verify_keys(aggregation.manifest, session, aggregation.number, keys, own)
    if encoded.ring != aggregation.ring:
        raise Refusal(Code.E_RANGE, "Report refused", "its vector is of another ring", "Encode it for this job")
    store.report(place)
    return masked_report(store.identity, aggregation, keys, encoded, X25519PrivateKey.generate())


def masked_report(
    signer: Signer,
    aggregation: Aggregation,
    keys: Sequence[RoundKeys],
    encoded: Encoded,
    exchange: X25519PrivateKey,
) -> MaskedReport:
    """`mask` without its checks, under a given one-time key: for vectors. Elsewhere the key is fresh."""
    own = aggregation.manifest.site_of(signer.public).id
    maskers = maskers_of(aggregation.manifest, aggregation.session, own)
    agreed = [_agree(aggregation.context, own, exchange, key) for key in keys if key.unmasker in maskers]
    add_masks([key for key, _ in agreed], encoded.lanes)
    report = MaskedReport(
        site=own,
        number=aggregation.number,
        exchange=public(exchange),
        ciphertexts=tuple(ciphertext for _, ciphertext in agreed if ciphertext is not None),
        body=pack(encoded.ring, reduce(encoded.ring, encoded.lanes)),
        signature=_UNSIGNED,
    )
    return sign_report(signer, aggregation.context, report)


def unmask(store: KeyStore, aggregation: Aggregation, members: Sequence[Member]) -> MaskTotal:
    """The sum of the masks that this site shares with exactly these reports.

    members  by ascending site, each as this unmasking site sees it; under `Rules.masks_each` only those masked for it
    Guarantee: one set a number, also across restarts; the same set again gets the same bytes. The seed of the
    number is erased with the answer.
    Errors: Refusal E_ROUND (never enrolled, or over), E_SET (second set, too few or many, too few
    organisations, not masked for this site, too near the last set), E_DUP, E_MANIFEST (unknown id), E_SIG, E_MODEL
    (own report or an earlier answer was bound otherwise), E_KEY. A refusal gives nothing away but its code.
    """
    own = aggregation.manifest.site_of(store.identity.public).id
    place = place_of(aggregation)
    if len(members) > (most := aggregation.manifest.rules.sites_max):  # before anything is hashed
        raise _set_refused(f"it has over {most} reports")
    digest = set_digest(aggregation.context, members)
    check_pinned(store, place.sid, place.record)
    if (earlier := store.answered(place.sid, place.number)) is not None:
        return _repeated(earlier, digest)
    seed = store.seed(place.sid, place.number)
    if seed is None or own not in aggregation.session.unmaskers:
        raise Refusal(Code.E_ROUND, f"Number {place.number} not unmasked", "no key of it is left", "Open another")
    _check_members(aggregation, members)
    _check_ciphertexts(aggregation, own, members)
    _check_bindings(store, place)
    _check_overlap(store, aggregation, members)
    for member in members:
        verify_member(aggregation.manifest, aggregation.context, member)
    total = mask_total(store.identity, aggregation, seed, members)
    sites = frozenset(member.site for member in members)
    store.answer(place, Answer(set_digest=digest, members=sites, total=total))
    return total


def mask_total(signer: Signer, aggregation: Aggregation, seed: RoundSeed, members: Sequence[Member]) -> MaskTotal:
    """`unmask` without its checks and its memory: for vectors. Errors: Refusal E_KEY."""
    own = aggregation.manifest.site_of(signer.public).id
    total = MaskTotal(
        unmasker=own,
        number=aggregation.number,
        body=mask_sum(aggregation, own, seed, members),
        set_digest=set_digest(aggregation.context, members),
        signature=_UNSIGNED,
    )
    return sign_total(signer, aggregation.context, total)


def place_of(aggregation: Aggregation) -> Place:
    """Where an act for this aggregation belongs."""
    session = aggregation.session
    return Place(
        sid=session.sid,
        record=record_digest(session),
        job=session.job,
        number=aggregation.number,
        attempt=aggregation.attempt,
        binding=aggregation.binding,
    )


def _agree(context: bytes, own: int, exchange: X25519PrivateKey, keys: RoundKeys) -> tuple[bytes, bytes | None]:
    """The mask key shared with one unmasking site, and the ciphertext that it needs to find it."""
    shared, ciphertext = agree(exchange, keys.exchange), None
    if keys.kem is not None:
        secret, ciphertext = encapsulate(keys.kem)
        shared += secret
    pair = Pair(
        context=context,
        site=own,
        unmasker=keys.unmasker,
        exchange=public(exchange),
        unmasker_exchange=keys.exchange,
        ciphertext=ciphertext,
    )
    return pair.mask_key(shared), ciphertext


def check_pinned(store: KeyStore, sid: bytes, record: bytes) -> None:
    """Refuse a second record under the name of a session. Errors: Refusal E_POLICY."""
    if store.pinned(sid) not in (None, record):
        why = "this session was first seen with another record"
        raise Refusal(Code.E_POLICY, "Session refused", why, "Open another session")


def refuse_reported(store: KeyStore, place: Place) -> None:
    """Refuse a second report in one attempt, of whatever group, or under one binding, in whatever session.

    Two sums with this site's report in both, opened by unmasking sites that know nothing of each other, could differ
    in one other site. Errors: Refusal E_ROUND, E_MODEL.
    """
    last = store.last_reported(place.sid)
    if last is not None and place.attempt <= last:
        raise Refusal(Code.E_ROUND, f"Report {place.number} refused", f"number {last} was used", "Open another attempt")
    if store.reported_under(place.binding):
        why = "this site has reported under its binding before"
        raise Refusal(Code.E_MODEL, f"Report {place.number} refused", why, "Bind the attempt to its round")


def _repeated(earlier: Answer, digest: bytes) -> MaskTotal:
    """The answer given before, to the same question only."""
    if earlier.set_digest != digest:
        raise _set_refused("another set was answered under this number")
    if earlier.total is None:
        raise Refusal(Code.E_ROUND, "Set refused", "a later number was answered since", "Open another number")
    return earlier.total


def _check_members(aggregation: Aggregation, members: Sequence[Member]) -> None:
    """The set as such: its size, order, organisations, and ciphertexts meant for this site."""
    rules, ids = aggregation.manifest.rules, [member.site for member in members]
    least = rules.reports_each(rules.quorum_min)
    if len(set(ids)) < len(ids):
        raise Refusal(Code.E_DUP, "Set refused", "an id occurs twice", "Send every report once")
    if ids != sorted(ids) or not least <= len(ids) <= rules.sites_max:
        raise _set_refused(f"it is not {least} to {rules.sites_max} reports by ascending site")
    if len(aggregation.manifest.orgs(ids)) < rules.orgs_each:
        raise _set_refused(f"fewer than {rules.orgs_each} organisations are behind it")


def _check_ciphertexts(aggregation: Aggregation, own: int, members: Sequence[Member]) -> None:
    """Each member is masked for this site; in suite 2 it brings the ciphertext whose digest its site signed."""
    session = aggregation.session
    for member in members:
        maskers = maskers_of(aggregation.manifest, session, member.site)
        if own not in maskers:
            raise _set_refused(f"the report of site {member.site} is not masked for this site")
        position = maskers.index(own)
        digest = None if member.ciphertext is None else hashlib.sha256(member.ciphertext).digest()
        expected = member.ciphertext_digests[position : position + 1] if session.suite == 2 else (None,)
        count = len(maskers) if session.suite == 2 else 0
        if len(member.ciphertext_digests) != count or (digest,) != expected:
            raise Refusal(Code.E_KEY, "Set refused", "a ciphertext is not the one that was signed", "Relay it whole")


def _check_bindings(store: KeyStore, place: Place) -> None:
    """The model that this site trained, and no model whose sum was opened before."""
    if store.reported(place.sid, place.number) not in (None, place.binding):
        why = "this site's own report of the number is of another model"
        raise Refusal(Code.E_MODEL, "Set refused", why, "Show all sites one model")
    if store.bound(place.binding) is not None:
        why = "a sum over this binding was opened under another number"
        raise Refusal(Code.E_MODEL, "Set refused", why, "Bind the attempt to its round")


def _check_overlap(store: KeyStore, aggregation: Aggregation, members: Sequence[Member]) -> None:
    """Two sets that differ in one site would give that site away by subtraction."""
    sites = {member.site for member in members}
    for last in store.last_members(place_of(aggregation), aggregation.groups):
        if 0 < (differ := len(last ^ sites)) < aggregation.manifest.rules.overlap_min:
            raise _set_refused(f"it differs from one of the last attempt in {differ} sites only")


def _set_refused(why: str) -> Refusal:
    return Refusal(Code.E_SET, "Set refused", why, "Open another number with a set within the rules")

"""Recovery at an unmasking site: shares of its own round seeds dealt, those of others kept and, if need be, released.

Enrolled -> dealt -> kept, before the session's first number; then, for a number that this site has answered itself,
shares of at most f lost sites, once. A refused order changes nothing. Source: anytrust late masking, `alm-v1`.

What a release can cost: a recovered site counts as corrupt for its number, since whoever joins its shares knows its
masks; whatever it answers later adds nothing to that. `Rules` sees to it that one honest site stays unrecovered, and
that one answers for one set only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from client.custody import Dealt, KeyStore, Place
from client.secagg import check_pinned, place_of
from common.errors import Code, Refusal
from common.frames import pack
from common.secagg.keys import RoundSeed
from common.secagg.manifest import Manifest
from common.secagg.parcels import box_key, opened_parcel, sealed_parcel, verify_boxes, verify_parcel
from common.secagg.shamir import share
from common.secagg.statements import Aggregation, check_session, record_digest, sign_release
from common.secagg.wire import BoxKey, Parcel, SessionRecord, ShareRelease

_UNSIGNED = bytes(64)


def own_box(store: KeyStore, manifest: Manifest, session: SessionRecord) -> BoxKey | None:
    """The key that others seal shares with for this site; None under rules without shares. After `enrol`.

    Errors: Refusal E_ROUND once shares are kept.
    """
    if not manifest.rules.lost_max:
        return None
    own = manifest.site_of(store.identity.public).id
    return box_key(store.identity, session, own, _secret(store, session))


def deal(store: KeyStore, manifest: Manifest, session: SessionRecord, boxes: Sequence[BoxKey]) -> tuple[Parcel, ...]:
    """Shares of this site's seed of every number, one parcel for each other unmasking site, in their order.

    boxes  of all unmasking sites, in the order of the session
    The same order again gives the same parcels, before the first report.
    Errors: Refusal E_POLICY (outside the rules), E_ROUND (never enrolled, dealt to other keys, under way), E_KEY,
    E_SIG.
    """
    place = _preparing(store, manifest, session)
    verify_boxes(manifest, session, boxes)
    digest = hashlib.sha256(pack(tuple(boxes))).digest()
    if (earlier := store.shares.dealt(session.sid)) is not None:
        if earlier.boxes != digest:
            raise _over("Shares not dealt", "they were dealt to other keys")
        return earlier.parcels
    own = manifest.site_of(store.identity.public).id
    holders, seeds = len(session.unmaskers), store.seeds(session.sid)
    dealt = [share(seeds[number].reveal(), manifest.rules.shares_min, holders) for number in sorted(seeds)]
    parcels = tuple(
        sealed_parcel(store.identity, session, own, box, [shares[point] for shares in dealt])
        for point, box in enumerate(boxes)
        if box.holder != own
    )
    store.shares.deal(place, Dealt(boxes=digest, parcels=parcels))
    return parcels


def keep(store: KeyStore, manifest: Manifest, session: SessionRecord, parcels: Sequence[Parcel]) -> tuple[int, ...]:
    """Keep the shares in the parcels of all other unmasking sites; or, keeping none, the dealers of bad ones.

    parcels  for this site, in the order of the session
    Errors: Refusal E_POLICY (outside the rules), E_ROUND (never enrolled, other parcels kept, under way), E_SHARE (not
    one of each), E_SIG.
    """
    place = _preparing(store, manifest, session)
    own = manifest.site_of(store.identity.public).id
    ends = [(parcel.dealer, parcel.holder) for parcel in parcels]
    if ends != [(dealer, own) for dealer in session.unmaskers if dealer != own]:
        why = "they are not one of each other unmasking site, in order"
        raise Refusal(Code.E_SHARE, "Parcels refused", why, "Relay them whole")
    for parcel in parcels:
        verify_parcel(manifest, session, parcel)
    digest = hashlib.sha256(pack(tuple(parcels))).digest()
    if (earlier := store.shares.kept(session.sid)) is not None:
        if earlier != digest:
            raise _over("Shares not kept", "others are kept already")
        return ()
    secret = _secret(store, session)
    found = {parcel.dealer: _opened(session, secret, parcel) for parcel in parcels}
    shares = {dealer: each for dealer, each in found.items() if each is not None}
    if len(shares) == len(found):
        store.shares.keep(place, digest, shares)
    return tuple(dealer for dealer in found if dealer not in shares)


def release(store: KeyStore, aggregation: Aggregation, answered: bytes, lost: Sequence[int]) -> ShareRelease:
    """This site's shares of the seeds of lost sites, for a number that it answered itself.

    answered  digest of the set that it answered for
    lost      ids, ascending
    Guarantee: one choice of lost sites a number, also across restarts; the same order again gets the same bytes.
    Errors: Refusal E_POLICY (more than the rules allow, this site itself, or strangers), E_ROUND (not answered, or
    over), E_SET (another set than it answered for, or other sites than before).
    """
    own = aggregation.manifest.site_of(store.identity.public).id
    place = place_of(aggregation)
    _check_lost(aggregation, own, lost)
    check_pinned(store, place.sid, place.record)
    _check_answered(store, place, answered)
    shares = [store.shares.share(place.sid, place.number, dealer) for dealer in lost]
    kept = tuple(each for each in shares if each is not None)
    if len(kept) < len(lost):
        raise _over("Shares not released", "none of this number are left")
    store.shares.release(place, tuple(lost))
    unsigned = ShareRelease(
        holder=own,
        number=place.number,
        set_digest=answered,
        lost=tuple(lost),
        shares=kept,
        signature=_UNSIGNED,
    )
    return sign_release(store.identity, aggregation.context, unsigned)


def _preparing(store: KeyStore, manifest: Manifest, session: SessionRecord) -> Place:
    """A session that this site enrolled in and that is not under way yet."""
    check_session(manifest, session)
    record = record_digest(session)
    check_pinned(store, session.sid, record)
    if not manifest.rules.lost_max:
        raise Refusal(Code.E_POLICY, "Shares refused", "the rules say lost_max = 0", "Change the manifest's rules")
    numbers = range(session.first, session.first + session.count)
    if set(store.seeds(session.sid)) != set(numbers) or store.last_reported(session.sid) is not None:
        raise _over("Shares refused", "this site did not enrol in the session, or it is under way")
    first = session.first
    return Place(sid=session.sid, record=record, job=session.job, number=first, attempt=first)


def _secret(store: KeyStore, session: SessionRecord) -> RoundSeed:
    secret = store.shares.box(session.sid)
    if secret is None:
        raise _over("Box key not used", "it is erased, or was never made")
    return secret


def _opened(session: SessionRecord, secret: RoundSeed, parcel: Parcel) -> tuple[bytes, ...] | None:
    """The shares in the parcel; None if its dealer signed something that cannot be opened."""
    try:
        return opened_parcel(session, secret, parcel)
    except Refusal:
        return None


def _check_lost(aggregation: Aggregation, own: int, lost: Sequence[int]) -> None:
    most, chosen = aggregation.manifest.rules.lost_max, aggregation.session.unmaskers
    if not 1 <= len(lost) <= most:
        why = f"{len(lost)} sites are called lost, the rules allow {most}"
        raise Refusal(Code.E_POLICY, "Shares not released", why, "Repeat the round without them")
    if list(lost) != sorted(set(lost)) or not set(lost) <= set(chosen) - {own} or own not in chosen:
        why = "the lost sites are not other unmasking sites of the session, ascending"
        raise Refusal(Code.E_POLICY, "Shares not released", why, "Name those that did not answer")


def _check_answered(store: KeyStore, place: Place, answered: bytes) -> None:
    """Shares complete a sum that this site has agreed to, and no other."""
    answer = store.answered(place.sid, place.number)
    if answer is None or answer.total is None:
        raise _over("Shares not released", "this site has not answered the number, or answered a later one since")
    if answer.set_digest != answered or store.bound(place.binding) != (place.sid, place.number):
        why = "this site answered for another set"
        raise Refusal(Code.E_SET, "Shares not released", why, "Name the set that was answered")


def _over(what: str, why: str) -> Refusal:
    return Refusal(Code.E_ROUND, what, why, "Open another session")

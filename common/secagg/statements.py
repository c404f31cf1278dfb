"""What is signed in an aggregation, and the digests that bind every signature and every mask to it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from msgspec.structs import replace

from common.errors import Code, Refusal
from common.frames import pack
from common.identity import Signer, verify
from common.secagg.manifest import Manifest
from common.secagg.masks import Ring
from common.secagg.wire import MaskedReport, MaskTotal, Member, RoundKeys, SessionRecord, ShareRelease

_CONTEXT = b"alm-v1/ctx\0"
_BOUND = b"alm-v1/bound\0"
_KEYS = b"alm-v1/hk\0"
_REPORT = b"alm-v1/report\0"
_UNMASK = b"alm-v1/unmask\0"
_RECOVER = b"alm-v1/recover\0"
_SET = b"alm-v1/set\0"


def record_digest(session: SessionRecord) -> bytes:
    """h_R."""
    return hashlib.sha256(pack(session)).digest()


def context_digest(manifest: bytes, record: bytes, number: int, bound: bytes) -> bytes:
    """ctx, from h_F, h_R, the aggregation number, and what it is over (32 bytes each)."""
    return hashlib.sha256(_CONTEXT + manifest + record + _le(number) + bound).digest()


def bound_digest(binding: bytes, ring: Ring) -> bytes:
    """What an aggregation is over: h_model, and the ring's width b and lanes D.

    The ring is in it because masks that are summed in lanes of another width tell more than their sum: carries.
    """
    return hashlib.sha256(_BOUND + binding + _le(ring.bits) + _le(ring.lanes)).digest()


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """One aggregation: under which manifest and session, with which number, over what.

    number   used once in the life of a session
    binding  h_model: digest of kind, round, attempt, model and job (32 bytes), given by the caller. Reports bind it,
             so sites that were shown different models cannot be added; a repeated attempt has another one
    ring     shape of the vectors that are added
    groups   g, sums of one attempt, each of other sites; its numbers stand side by side, from a multiple of g on
    Errors: Refusal E_POLICY or E_MANIFEST (session outside the manifest's rules), E_ROUND (number outside it).
    """

    manifest: Manifest
    session: SessionRecord
    number: int
    binding: bytes
    ring: Ring
    groups: int = 1

    def __post_init__(self) -> None:
        check_session(self.manifest, self.session)
        if not self.session.first <= self.number < self.session.first + self.session.count:
            raise Refusal(
                Code.E_ROUND, f"Aggregation {self.number} refused", "its session has no such number", "Open another"
            )
        if len(self.binding) != 32:
            raise Refusal(Code.E_MODEL, "Binding refused", "it is no SHA-256 digest", "Hash what the sum is about")

    @property
    def attempt(self) -> int:
        """First number of the attempt."""
        return self.number - (self.number - self.session.first) % self.groups

    @cached_property
    def context(self) -> bytes:
        """ctx."""
        record = record_digest(self.session)
        return context_digest(self.manifest.digest, record, self.number, bound_digest(self.binding, self.ring))


def check_session(manifest: Manifest, session: SessionRecord) -> None:
    """Refuse a session record that the manifest does not allow. Errors: Refusal E_MANIFEST, E_POLICY."""
    rules, chosen = manifest.rules, session.unmaskers
    if session.manifest != manifest.digest:
        raise Refusal(Code.E_MANIFEST, "Session refused", "it names another manifest", "Use the manifest in force")
    if session.suite != rules.suite:
        raise _outside(f"its suite is {session.suite}, the rules ask for {rules.suite}")
    if not rules.unmaskers_min:
        raise _outside("the rules have unmasking sites of no session: only pairwise masks")
    if len(set(chosen)) < len(chosen) or not set(chosen) <= set(manifest.unmaskers):
        raise _outside("its unmasking sites repeat, or the manifest does not let them unmask")
    if len(chosen) < rules.unmaskers_min:
        raise _outside(f"it has {len(chosen)} unmasking sites, the rules ask for {rules.unmaskers_min}")
    if rules.masks_each and len(chosen) != rules.unmaskers_min:
        raise _outside(f"it has {len(chosen)} unmasking sites, with masks_each it must have {rules.unmaskers_min}")
    if session.count > rules.rounds_max or session.first + session.count >= 2**63:
        raise _outside(f"it covers {session.count} numbers, the rules allow {rules.rounds_max}")


def maskers_of(manifest: Manifest, session: SessionRecord, site: int) -> tuple[int, ...]:
    """The unmasking sites that a site's report of this session is masked for, in the session's order.

    All of them; under `Rules.masks_each` so many, by the site's lot.
    """
    return manifest.lots.maskers(session.unmaskers, site) if manifest.rules.masks_each else session.unmaskers


def sign_keys(signer: Signer, session: SessionRecord, keys: RoundKeys) -> RoundKeys:
    """`keys` under the signature of their unmasking site."""
    return replace(keys, signature=signer.sign(*_keys_statement(record_digest(session), keys)))


def verify_key(manifest: Manifest, session: SessionRecord, key: RoundKeys) -> None:
    """Accept only a key of the session's suite that its unmasking site signed. Errors: Refusal E_KEY, E_SIG."""
    if (key.kem is not None) != (session.suite == 2) or key.unmasker not in session.unmaskers:
        raise Refusal(Code.E_KEY, "Round keys refused", "they are not of this session", "Collect its own keys")
    verify(manifest.site(key.unmasker).identity, key.signature, *_keys_statement(record_digest(session), key))


def verify_keys(manifest: Manifest, session: SessionRecord, number: int, keys: Sequence[RoundKeys], site: int) -> None:
    """Accept only keys of all unmasking sites of `session`, in its order, for this number; signed, if `site` masks for
    them: others it does not use.

    Errors: Refusal E_KEY (missing, of another number, suite or order), E_SIG.
    """
    if [(key.unmasker, key.number) for key in keys] != [(unmasker, number) for unmasker in session.unmaskers]:
        why = "they are not one of each unmasking site, in order, for this number"
        raise Refusal(Code.E_KEY, "Round keys refused", why, "Collect the keys of this session")
    used = maskers_of(manifest, session, site)
    for key in keys:
        if key.unmasker in used:
            verify_key(manifest, session, key)


def sign_report(signer: Signer, context: bytes, report: MaskedReport) -> MaskedReport:
    """`report` under the signature of its site."""
    return replace(report, signature=signer.sign(*_report_statement(context, member_of(report, None))))


def verify_member(manifest: Manifest, context: bytes, member: Member) -> None:
    """Accept only what the member's site signed for this context. Errors: Refusal E_SIG, E_MANIFEST."""
    verify(manifest.site(member.site).identity, member.signature, *_report_statement(context, member))


def member_of(report: MaskedReport, position: int | None) -> Member:
    """The report as the unmasking site at `position` of its maskers sees it: digests instead of vector.

    None: as none of them does, without any ciphertext.
    """
    own = report.ciphertexts[position] if report.ciphertexts and position is not None else None
    return Member(
        site=report.site,
        exchange=report.exchange,
        body_digest=hashlib.sha256(report.body).digest(),
        ciphertext=own,
        ciphertext_digests=tuple(hashlib.sha256(each).digest() for each in report.ciphertexts),
        signature=report.signature,
    )


def set_digest(context: bytes, members: Iterable[Member]) -> bytes:
    """h_S of members by ascending site: the same for all unmasking sites that see these members, since their own
    ciphertexts are no part.
    """
    hashed = hashlib.sha256(_SET + context)
    for member in members:
        hashed.update(_member_statement(member) + member.signature)
    return hashed.digest()


def sign_total(signer: Signer, context: bytes, total: MaskTotal) -> MaskTotal:
    """`total` under the signature of its unmasking site."""
    return replace(total, signature=signer.sign(*_total_statement(context, total)))


def verify_total(manifest: Manifest, context: bytes, total: MaskTotal) -> None:
    """Accept only a total that its unmasking site signed for this context. Errors: Refusal E_SIG, E_MANIFEST."""
    verify(manifest.site(total.unmasker).identity, total.signature, *_total_statement(context, total))


def sign_release(signer: Signer, context: bytes, release: ShareRelease) -> ShareRelease:
    """`release` under the signature of its holder."""
    return replace(release, signature=signer.sign(*_release_statement(context, release)))


def verify_release(manifest: Manifest, context: bytes, release: ShareRelease) -> None:
    """Accept only shares that their holder signed for this context. Errors: Refusal E_SIG, E_MANIFEST."""
    verify(manifest.site(release.holder).identity, release.signature, *_release_statement(context, release))


def _keys_statement(record: bytes, keys: RoundKeys) -> tuple[bytes, ...]:
    return _KEYS, record, _le(keys.number), _le(keys.unmasker), keys.exchange, keys.kem or b""


def _report_statement(context: bytes, member: Member) -> tuple[bytes, ...]:
    return _REPORT, context, _member_statement(member)


def _member_statement(member: Member) -> bytes:
    """Fixed size: i ‖ epk ‖ SHA-256(y) ‖ SHA-256 of the ciphertexts' digests."""
    ciphertexts = hashlib.sha256(b"".join(member.ciphertext_digests)).digest()
    return _le(member.site) + member.exchange + member.body_digest + ciphertexts


def _total_statement(context: bytes, total: MaskTotal) -> tuple[bytes, ...]:
    body = hashlib.sha256(total.body).digest()
    return _UNMASK, context, _le(total.unmasker), total.set_digest, body


def _release_statement(context: bytes, release: ShareRelease) -> tuple[bytes, ...]:
    lost = hashlib.sha256(b"".join(map(_le, release.lost))).digest()
    return _RECOVER, context, _le(release.holder), release.set_digest, lost, b"".join(release.shares)


def _le(number: int) -> bytes:
    return struct.pack("<Q", number)


def _outside(why: str) -> Refusal:
    return Refusal(Code.E_POLICY, "Session refused", why, "Open a session within the manifest's rules")

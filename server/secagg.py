"""Secure aggregation at the coordinator: it adds what sites masked and takes away what unmasking sites return.

Every step is a frozen value; a message is checked whole before it moves anything. Collecting -> Unmasking -> Sum;
where an unmasking site was lost, `recovery.py` takes its masks away before the sum is opened.
Source: anytrust late masking, `alm-v1`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from msgspec.structs import replace as altered

from common.errors import Code, Refusal
from common.secagg.codec import Codec, Sum
from common.secagg.keys import agree
from common.secagg.manifest import Manifest
from common.secagg.masks import Lanes, Ring, reduce, unpack
from common.secagg.statements import Aggregation, maskers_of, member_of, set_digest, verify_member, verify_total
from common.secagg.wire import MaskedReport, MaskTotal, Member, SessionRecord


class Accumulator:
    """The running sum, shared by the states of one aggregation: one vector in memory, whatever the cohort.

    `steps` counts what went into it. A state adds only if it is the newest, so an old one cannot be continued.
    """

    __slots__ = ("_lanes", "_ring", "_steps")

    def __init__(self, ring: Ring):
        self._ring, self._lanes, self._steps = ring, ring.zeros(), 0

    def __repr__(self) -> str:
        return "Accumulator"

    def add(self, step: int, body: bytes) -> None:
        """Add a packed vector as the step after `step`."""
        lanes = self._next(step, body)
        self._lanes += lanes
        self._steps += 1

    def subtract(self, step: int, body: bytes) -> None:
        """Take a packed vector away as the step after `step`."""
        lanes = self._next(step, body)
        self._lanes -= lanes
        self._steps += 1

    def total(self, step: int) -> Lanes:
        """A reduced copy of the sum after `step`."""
        self._check(step)
        return reduce(self._ring, self._lanes.copy())

    def _next(self, step: int, body: bytes) -> Lanes:
        self._check(step)
        return unpack(self._ring, body)

    def _check(self, step: int) -> None:
        if step != self._steps:
            raise Refusal(Code.E_ROUND, "Step refused", "this state was left behind", "Go on from the newest one")


@dataclass(frozen=True)
class Received:
    """A report that was added, without its vector: all that was signed, a ciphertext for each site it masks for."""

    member: Member
    ciphertexts: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True)
class Collecting:
    """The coordinator waits for masked reports of the cohort; each is added on arrival and its vector dropped.

    `total` is shared with later states: of all states of an aggregation only the newest can be continued.
    """

    aggregation: Aggregation
    cohort: frozenset[int]
    total: Accumulator = field(repr=False)
    quorum: int
    reports: Mapping[int, Received] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, aggregation: Aggregation, cohort: Collection[int], quorum: int = 0) -> Collecting:
        """Wait for these sites. Errors: Refusal E_MANIFEST, E_TOO_FEW (below the quorum), E_SET (too many).

        quorum  the job's own, where it is above the manifest's: unmasking sites hold it against what they see
        """
        asked, least = frozenset(cohort), max(quorum, aggregation.manifest.rules.quorum_min)
        _check_quorum(aggregation, asked, least)
        if len(asked) > (most := aggregation.manifest.rules.sites_max):
            raise Refusal(Code.E_SET, "Cohort refused", f"it has over {most} sites", "Ask fewer")
        return cls(aggregation, asked, Accumulator(aggregation.ring), least)

    @property
    def missing(self) -> frozenset[int]:
        """Sites of the cohort that have not reported yet."""
        return self.cohort - frozenset(self.reports)

    def receive(self, site: int, report: MaskedReport) -> Collecting:
        """With one report more, from the site that signed the message it came in.

        Errors: Refusal E_SET (not asked), E_DUP, E_ROUND (another number), E_KEY (ciphertexts, or a key of small order:
        unmasking sites would refuse the whole set for it), E_SIG (not signed for this aggregation), MESSAGE_INVALID
        (length). Nothing is added then.
        """
        about = self.aggregation
        if report.site != site or site not in self.cohort:
            raise Refusal(Code.E_SET, "Report refused", "its site was not asked", "Wait for another round")
        if site in self.reports:
            raise Refusal(Code.E_DUP, "Report refused", f"site {site} reported already", "Wait for the others")
        if report.number != about.number:
            raise Refusal(Code.E_ROUND, "Report refused", "it is of another number", "Answer the order in force")
        maskers = maskers_of(about.manifest, about.session, site) if about.session.suite == 2 else ()
        if len(report.ciphertexts) != len(maskers):
            raise Refusal(Code.E_KEY, "Report refused", "ciphertexts are missing or too many", "Use the round's keys")
        member = member_of(report, None)
        verify_member(about.manifest, about.context, member)
        agree(X25519PrivateKey.generate(), report.exchange)
        self.total.add(len(self.reports), report.body)
        return replace(self, reports={**self.reports, site: Received(member, report.ciphertexts)})

    def close(self) -> Unmasking:
        """Fix the set: from here on no report is added. Errors: Refusal E_TOO_FEW; then nothing is revealed."""
        few = _check_quorum(self.aggregation, self.reports, self.quorum)
        return Unmasking(self.aggregation, self.total, dict(sorted(self.reports.items())), few)


@dataclass(frozen=True)
class Unmasking:
    """The set is fixed; the coordinator waits for the mask totals of all unmasking sites.

    thin  unmasking sites that see too little of the set to answer for it: they count as lost
    """

    aggregation: Aggregation
    total: Accumulator = field(repr=False)
    reports: Mapping[int, Received] = field(repr=False)
    thin: frozenset[int] = frozenset()
    answered: frozenset[int] = frozenset()

    @property
    def missing(self) -> frozenset[int]:
        """Unmasking sites whose masks are still in the sum."""
        return frozenset(self.aggregation.session.unmaskers) - self.answered

    @property
    def awaited(self) -> frozenset[int]:
        """Unmasking sites that can answer for the set and have not done so yet."""
        return self.missing - self.thin

    def members(self, unmasker: int) -> tuple[Member, ...]:
        """The set as this unmasking site must see it. Always the same: another set under the number is refused."""
        return tuple(
            altered(each.member, ciphertext=each.ciphertexts[place] if each.ciphertexts else None)
            for each, place in self._masked_for(unmasker)
        )

    def set_digest(self, unmasker: int) -> bytes:
        """h_S of the set as this unmasking site must see it: what it answers for."""
        return set_digest(self.aggregation.context, (each.member for each, _ in self._masked_for(unmasker)))

    def _masked_for(self, unmasker: int) -> Iterator[tuple[Received, int]]:
        """Reports that are masked for this unmasking site, and its place among those that each is masked for."""
        about = self.aggregation
        for site, each in self.reports.items():
            maskers = maskers_of(about.manifest, about.session, site)
            if unmasker in maskers:
                yield each, maskers.index(unmasker)

    def receive(self, site: int, total: MaskTotal) -> Unmasking:
        """With the masks of one unmasking site taken away.

        Errors: Refusal E_POLICY (not asked), E_DUP, E_ROUND (another number), E_SET (of another set), E_SIG,
        MESSAGE_INVALID (length). Nothing is taken away then.
        """
        if total.unmasker != site or site not in self.aggregation.session.unmaskers:
            raise Refusal(Code.E_POLICY, "Masks refused", "their site was not asked", "Ask those of the session")
        if site in self.answered:
            raise Refusal(Code.E_DUP, "Masks refused", f"site {site} answered already", "Wait for the others")
        if total.number != self.aggregation.number:
            raise Refusal(Code.E_ROUND, "Masks refused", "they are of another number", "Answer the order in force")
        if total.set_digest != self.set_digest(site):
            raise Refusal(Code.E_SET, "Masks refused", "they are of another set", "Answer for the set in the order")
        verify_total(self.aggregation.manifest, self.aggregation.context, total)
        return self.without(site, total.body)

    def without(self, site: int, masks: bytes) -> Unmasking:
        """With the masks of one unmasking site, packed, taken away: its own answer, or computed from its seed.

        Errors: Refusal E_DUP, MESSAGE_INVALID (length).
        """
        if site not in self.missing:
            raise Refusal(Code.E_DUP, "Masks refused", f"those of site {site} are taken away", "Wait for the others")
        self.total.subtract(len(self.reports) + len(self.answered), masks)
        return replace(self, answered=self.answered | {site})

    def open(self, codec: Codec) -> Sum:
        """The sum, once all unmasking sites have answered.

        Errors: Refusal E_HELPER_LOST (some have not), E_RANGE (codec of another ring), E_SUM_CHECK.
        """
        if self.missing:
            why = f"unmasking sites {sorted(self.missing)} did not answer"
            raise Refusal(Code.E_HELPER_LOST, "Sum not opened", why, "Wait for them or repeat the round")
        if codec.ring != self.aggregation.ring:
            raise Refusal(Code.E_RANGE, "Sum not opened", "the codec is of another ring", "Use the job's codec")
        lanes = self.total.total(len(self.reports) + len(self.answered))
        return codec.open_sum(lanes, len(self.reports))

    def unmask(self, totals: Iterable[MaskTotal], codec: Codec) -> Sum:
        """`receive` all totals, then `open`."""
        state = self
        for total in totals:
            state = state.receive(total.unmasker, total)
        return state.open(codec)


def thin(manifest: Manifest, session: SessionRecord, sites: Collection[int], quorum: int) -> frozenset[int]:
    """Unmasking sites that would refuse a set of these sites' reports: too few of them are masked for it.

    quorum  that they hold against it: the manifest's or the job's. Empty where all reports are masked for all.
    """
    rules = manifest.rules
    if not rules.masks_each:
        return frozenset()
    seen: dict[int, list[int]] = {each: [] for each in session.unmaskers}
    for site in sites:
        for each in maskers_of(manifest, session, site):
            seen[each].append(site)
    least, orgs = rules.reports_each(quorum), rules.orgs_each
    return frozenset(each for each, own in seen.items() if len(own) < least or len(manifest.orgs(own)) < orgs)


def _check_quorum(aggregation: Aggregation, sites: Collection[int], quorum: int) -> frozenset[int]:
    """The `thin` unmasking sites, if the others can recover them all. Errors: Refusal E_TOO_FEW."""
    rules = aggregation.manifest.rules
    if len(sites) < rules.quorum_min or len(aggregation.manifest.orgs(sites)) < rules.orgs_min:
        why = f"{len(sites)} reports are below {rules.quorum_min} sites of {rules.orgs_min} organisations"
        raise Refusal(Code.E_TOO_FEW, "Round dropped", why, "Wait for more sites and repeat it")
    few = thin(aggregation.manifest, aggregation.session, sites, quorum)
    if len(few) > rules.lost_max:
        why = f"unmasking sites {sorted(few)} see too small a part of {len(sites)} reports"
        raise Refusal(Code.E_TOO_FEW, "Round dropped", why, "Wait for more sites and repeat it")
    return few

"""Opening a session of secure aggregations: who unmasks, and their round keys, each checked on arrival."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from common.errors import Code, Refusal
from common.secagg.manifest import Manifest
from common.secagg.parcels import verify_box
from common.secagg.statements import check_session, verify_key
from common.secagg.wire import BoxKey, RoundKeys, SessionRecord


def open_session(
    manifest: Manifest, job: bytes, present: Collection[int], numbers: range, *, sid: bytes, draw: torch.Generator
) -> SessionRecord:
    """A session under the rules, with `unmaskers_min` of the unmasking sites that are present.

    More of them would not raise the number of corrupt ones that the rules allow for, but each is one more that
    may be lost in a round.

    job   digest of the job
    sid   32 bytes that no session had before, from system entropy
    draw  decides who unmasks, and nothing secret
    Errors: Refusal E_TOO_FEW (not enough unmasking sites), E_POLICY (too many numbers).
    """
    candidates = sorted(set(manifest.unmaskers) & set(present))
    wanted = manifest.rules.unmaskers_min
    if len(candidates) < wanted:
        why = f"{len(candidates)} unmasking sites are present, the rules ask for {wanted}"
        raise Refusal(Code.E_TOO_FEW, "Session not opened", why, "Wait for more of them")
    order = torch.randperm(len(candidates), generator=draw)[:wanted].tolist()
    session = SessionRecord(
        sid=sid,
        manifest=manifest.digest,
        job=job,
        unmaskers=tuple(sorted(candidates[place] for place in order)),
        first=numbers.start,
        count=len(numbers),
        suite=manifest.rules.suite,
    )
    check_session(manifest, session)
    return session


@dataclass(frozen=True)
class Opening:
    """The coordinator waits for round keys of the session's unmasking sites.

    boxes        under rules with shares: the keys that these are sealed with
    commitments  to the shares that each holder keeps of each dealer's seeds, by dealer and holder; after the deal
    """

    manifest: Manifest
    session: SessionRecord
    received: Mapping[int, tuple[RoundKeys, ...]] = field(default_factory=dict, repr=False)
    boxes: Mapping[int, BoxKey] = field(default_factory=dict, repr=False)
    commitments: Mapping[tuple[int, int], tuple[bytes, ...]] = field(default_factory=dict, repr=False)

    @property
    def missing(self) -> frozenset[int]:
        """Unmasking sites that have not enrolled yet."""
        return frozenset(self.session.unmaskers) - frozenset(self.received)

    def receive(self, site: int, keys: Sequence[RoundKeys], box: BoxKey | None = None) -> Opening:
        """With the keys of one unmasking site for every number, and its box under rules with shares.

        Errors: Refusal E_POLICY (not asked), E_DUP, E_KEY (numbers, suite), E_SIG.
        """
        if site not in self.session.unmaskers:
            raise Refusal(Code.E_POLICY, "Round keys refused", "their site was not asked", "Ask those of the session")
        if site in self.received:
            raise Refusal(Code.E_DUP, "Round keys refused", f"site {site} enrolled already", "Wait for the others")
        numbers = range(self.session.first, self.session.first + self.session.count)
        if [(key.unmasker, key.number) for key in keys] != [(site, number) for number in numbers]:
            raise Refusal(Code.E_KEY, "Round keys refused", "they are not one a number", "Enrol for this session")
        if (box.holder if box else None) != (site if self.manifest.rules.lost_max else None):
            raise Refusal(Code.E_KEY, "Round keys refused", "the box is missing or not theirs", "Enrol by the rules")
        for key in keys:
            verify_key(self.manifest, self.session, key)
        if box:
            verify_box(self.manifest, self.session, box)
        boxes = {**self.boxes, site: box} if box else self.boxes
        return replace(self, received={**self.received, site: tuple(keys)}, boxes=boxes)

    def keys(self, number: int) -> tuple[RoundKeys, ...]:
        """What every site needs to mask for `number`. Errors: Refusal E_HELPER_LOST while any is missing."""
        if self.missing:
            raise Refusal(
                Code.E_HELPER_LOST, "Round not opened", f"sites {sorted(self.missing)} did not enrol", "Open a session"
            )
        return tuple(self.received[unmasker][number - self.session.first] for unmasker in self.session.unmaskers)

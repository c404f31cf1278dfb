"""A hostile coordinator where unmasking sites may be recovered, sums come in groups, and masks may be for some only.

Beside `test_hostile_coordinator.py`, which holds one sum a number and masks for all against several sessions.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from client.keystore import SqliteKeyStore
from client.recovery import release
from client.secagg import unmask
from common.errors import Code, Refusal
from common.secagg import IntegerCodec, Rules
from common.secagg.statements import maskers_of, member_of, set_digest
from server.recovery import Recovering
from server.secagg import Collecting, Unmasking
from tests.secagg_federation import REGULAR, SHARING, Federation, signer

MEMORY = Path("/dev/shm")  # files all the same, without the waiting for a disk: no power fails here
NUMBERS = 6
NUMBER, SITE = st.integers(0, NUMBERS - 1), st.integers(1, 10)
CODEC = IntegerCodec(dimension=5, sites_max=16, bits=20)
ALL: Rules = replace(SHARING, suite=1, overlap_min=0)
SOME: Rules = replace(REGULAR, suite=1, overlap_min=0, lost_max=1, shares_min=5)
PLACE, PICK, MOSTLY = st.integers(0, 5), st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([True, True, True, False])
Question = tuple[bytes, frozenset[int]]


def newest(numbers: Mapping[int, object], pick: int) -> int:
    """One of the newest numbers of which there is anything."""
    found = [number for number in sorted(numbers, reverse=True) if numbers[number]]
    return found[pick % len(found)]


class HostileRecovery(RuleBasedStateMachine):
    """What may never happen, whatever the coordinator asks for, in whatever order, over restarts of sites.

    A site reports in two groups of an attempt; an unmasking site answers two sets, or fewer than it must see of one;
    shares are released for two choices of lost sites, for more than f, or before the holder answered; of one number so
    many seeds of honest sites can be rebuilt that none of them is left.
    """

    @initialize(some=st.booleans(), groups=st.sampled_from([1, 2, 3]))
    def found(self, some: bool, groups: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hushfed-recovery-", dir=MEMORY if MEMORY.is_dir() else None))
        rules, count, self.groups = (SOME if some else ALL), (10 if some else 6), groups
        self.federation = Federation.open(count, rules=rules, codec=CODEC, numbers=NUMBERS)
        for site in self.federation.manifest.ids:
            self.federation.stores[site] = self.filed(site)
        self.federation = self.federation.again(bytes([1]) * 32, NUMBERS)
        self.last_report: dict[int, int] = {}
        self.reports: dict[int, dict[int, object]] = {number: {} for number in range(NUMBERS)}
        self.answers: dict[int, dict[int, Question]] = {site: {} for site in self.federation.session.unmaskers}
        self.released: dict[tuple[int, int], tuple[int, ...]] = {}  # by holder and number

    def filed(self, site: int) -> SqliteKeyStore:
        folder = self.folder / str(site)
        folder.mkdir(mode=0o700)
        signer(site).save(folder / "identity")
        return SqliteKeyStore.open(folder)

    def about(self, number: int):
        return replace(self.federation.aggregation(number), groups=self.groups)

    def attempt(self, number: int) -> int:
        return number - number % self.groups

    def over(self, site: int, number: int) -> bool:
        """Whether a later attempt has begun for the site, as far as its answers say."""
        return number < self.attempt(max(self.answers[site], default=0))

    def left(self, site: int, number: int) -> bool:
        """Whether secrets of the number are left at an unmasking site, unless it answered."""
        return not self.over(site, number) and number >= self.attempt(self.last_report.get(site, 0))

    @rule(site=SITE)
    def restart(self, site: int) -> None:
        if site in self.federation.stores:
            self.federation.stores[site].close()
            self.federation.stores[site] = SqliteKeyStore.open(self.folder / str(site))

    @rule(site=SITE, number=NUMBER)
    def ask_for_a_report(self, site: int, number: int) -> None:
        if site not in self.federation.manifest.ids:
            return
        free = site not in self.last_report or self.attempt(number) > self.last_report[site]
        try:
            report = self.federation.report(site, self.about(number))
        except Refusal as refusal:
            self.expect(refusal, Code.E_ROUND, unless=free)
            return
        assert free
        self.last_report[site] = number
        self.reports[number][site] = report

    @rule(ahead=st.sampled_from([1, 1, 2]), absent=st.sets(SITE, max_size=2))
    def ask_all_for_reports(self, ahead: int, absent: set[int]) -> None:
        number = max(self.last_report.values(), default=-1) + ahead
        for site in self.federation.manifest.ids:
            if site not in absent and 0 <= number < NUMBERS:
                self.ask_for_a_report(site, number)

    @precondition(lambda self: any(self.reports.values()))
    @rule(place=PLACE, pick=PICK, keep=st.sampled_from([1, 2, 3, 4, 99, 99, 99]))
    def ask_for_masks(self, place: int, pick: int, keep: int) -> None:
        """Those of a number's reports that are masked for a site, or the first of them."""
        session, manifest = self.federation.session, self.federation.manifest
        site, number = session.unmaskers[place % len(session.unmaskers)], newest(self.reports, pick)
        seen = [each for each in sorted(self.reports[number]) if site in maskers_of(manifest, session, each)]
        self.unmasked(site, number, seen[:keep])

    def unmasked(self, site: int, number: int, chosen: list[int]):
        aggregation, rules = self.about(number), self.federation.manifest.rules
        members = tuple(member_of(self.reports[number][each], None) for each in chosen)
        question = set_digest(aggregation.context, members)
        if number in self.answers[site]:
            legal = self.answers[site][number][0] == question and not self.over(site, number)
        else:
            legal = self.left(site, number) and len(chosen) >= rules.reports_each(rules.quorum_min)
        try:
            total = unmask(self.federation.stores[site], aggregation, members)
        except Refusal as refusal:
            self.expect(refusal, Code.E_ROUND, Code.E_SET, unless=legal)
            return None
        assert legal
        self.answers[site][number] = (question, frozenset(chosen))
        return total

    @precondition(lambda self: any(self.answers.values()))
    @rule(place=PLACE, pick=PICK, lost=st.sampled_from([(0,), (1,), (2,), (5,), (0, 1), ()]), honest=MOSTLY)
    def ask_for_shares(self, place: int, pick: int, lost: tuple[int, ...], honest: bool) -> None:
        session = self.federation.session
        holders = [site for site in session.unmaskers if self.answers[site]]
        holder = holders[place % len(holders)]
        number = newest(self.answers[holder], pick)
        named = {session.unmaskers[each % len(session.unmaskers)] for each in lost}
        answered = self.answers[holder][number][0] if honest else bytes(32)
        for chosen in (named, set(session.unmaskers[:1]), set(session.unmaskers[1:2])):  # and others right after it
            self.shares(holder, number, tuple(sorted(chosen)), answered)

    @rule(place=PLACE, number=NUMBER)
    def ask_for_shares_of_a_number_that_may_not_be_answered(self, place: int, number: int) -> None:
        session = self.federation.session
        holder = session.unmaskers[place % len(session.unmaskers)]
        answered = self.answers[holder].get(number, (bytes(32),))[0]
        self.shares(holder, number, (next(site for site in session.unmaskers if site != holder),), answered)

    def shares(self, holder: int, number: int, lost: tuple[int, ...], answered: bytes):
        others, rules = set(self.federation.session.unmaskers) - {holder}, self.federation.manifest.rules
        legal = (
            1 <= len(lost) <= rules.lost_max
            and set(lost) <= others
            and self.answers[holder].get(number, (None,))[0] == answered
            and self.left(holder, number)
            and self.released.get((holder, number), lost) == lost
        )
        try:
            given = release(self.federation.stores[holder], self.about(number), answered, lost)
        except Refusal as refusal:
            self.expect(refusal, Code.E_POLICY, Code.E_ROUND, Code.E_SET, unless=legal)
            return None
        assert legal
        self.released[holder, number] = lost
        return given

    @precondition(lambda self: max(self.last_report.values(), default=0) < NUMBERS - 3)
    @rule(place=PLACE)
    def play_a_round_in_which_one_is_lost(self, place: int) -> None:
        """Whatever went before, an honest coordinator's next attempt opens the very sum, without the lost site."""
        session, about = self.federation.session, None
        number = self.attempt(max(self.last_report.values(), default=-1) + self.groups)
        number = max(
            number, self.attempt(max((max(a, default=0) for a in self.answers.values()), default=0)) + self.groups
        )
        if number >= NUMBERS:
            return
        lost, about = session.unmaskers[place % len(session.unmaskers)], self.about(number)
        state = Collecting.open(about, self.federation.manifest.ids)
        for site in self.federation.manifest.ids:
            self.ask_for_a_report(site, number)
            state = state.receive(site, self.reports[number][site])  # type: ignore[arg-type]
        recovering = Recovering.open(self.federation.opening, self.answered(state.close(), lost))
        for holder in sorted(recovering.missing):
            given = self.shares(holder, number, (lost,), recovering.unmasking.set_digest(holder))
            recovering = recovering.receive(holder, given)
        opened = recovering.recover(recovering.unmasking, lost).open(CODEC)
        assert opened.values.tolist() == [sum(self.federation.manifest.ids)] * CODEC.dimension

    def answered(self, state: Unmasking, lost: int) -> Unmasking:
        for site in sorted(state.missing - {lost}):
            members = [member.site for member in state.members(site)]
            state = state.receive(site, self.unmasked(site, state.aggregation.number, members))
        return state

    @staticmethod
    def expect(refusal: Refusal, *codes: Code, unless: bool) -> None:
        assert not unless, refusal
        assert refusal.code in codes

    @invariant()
    def an_honest_site_stays_whose_seed_nobody_can_rebuild(self) -> None:
        """Corrupt sites, the last of the session, give away what they keep; any of the others may have been named."""
        if not hasattr(self, "released"):
            return
        rules, chosen = self.federation.manifest.rules, self.federation.session.unmaskers
        honest = set(chosen[: len(chosen) - rules.corrupt_max])
        for number in range(NUMBERS):
            named = [lost for (holder, of), lost in self.released.items() if of == number and holder in honest]
            needed = rules.shares_min - rules.corrupt_max
            rebuilt = {site for site in honest if sum(site in lost for lost in named) >= needed}
            assert len(rebuilt) <= rules.recovered_max < len(honest)

    @invariant()
    def no_answered_set_is_below_its_minimum(self) -> None:
        for answers in getattr(self, "answers", {}).values():
            rules = self.federation.manifest.rules
            assert all(len(sites) >= rules.reports_each(rules.quorum_min) for _, sites in answers.values())

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for store in self.federation.stores.values():
                store.close()
            shutil.rmtree(self.folder)


TestHostileRecovery = HostileRecovery.TestCase
TestHostileRecovery.settings = settings(max_examples=40, stateful_step_count=40)

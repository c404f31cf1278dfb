"""A hostile coordinator: every order in every order, again and again, to sites that restart; against a model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from client.keystore import SqliteKeyStore
from client.secagg import enrol, mask, unmask
from common.errors import Code, Refusal
from common.secagg import IntegerCodec, Rules, reduce, unpack
from common.secagg.statements import member_of, set_digest
from server.secagg import Collecting
from tests.secagg_federation import Federation, digest, signer

MEMORY = Path("/dev/shm")  # files all the same, without the waiting for a disk: no power fails here
NUMBERS, BINDINGS = 8, 2
NUMBER, BINDING, SITE = st.integers(0, NUMBERS - 1), st.integers(0, BINDINGS - 1), st.integers(1, 6)
PICK = st.sampled_from([0, 0, 0, 1, 2, 3])  # the newest report's number and model, or an older one
AHEAD, FEW = st.sampled_from([1, 1, 1, 2]), st.sets(SITE, max_size=1)
CODEC = IntegerCodec(dimension=5, sites_max=8, bits=20)


class HostileCoordinator(RuleBasedStateMachine):
    """The coordinator of three to six sites does as it likes; the sites' stores are on disk.

    What may never happen, whatever it does: a site masks twice under one number or binding; an unmasking site answers
    two sets under one number, a set below the quorum, or sets that differ in too few sites; answers that fit each other
    open anything but the sum of their members.
    """

    @initialize(count=st.integers(3, 6), unmaskers=st.integers(2, 3), overlap=st.sampled_from([0, 2, 2]))
    def found(self, count: int, unmaskers: int, overlap: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hushfed-hostile-", dir=MEMORY if MEMORY.is_dir() else None))
        rules = Rules(
            unmaskers_min=unmaskers, quorum_min=2, orgs_min=1, sites_max=8, corrupt_max=1, overlap_min=overlap, suite=1
        )
        self.federation = Federation.open(count, rules=rules, codec=CODEC, numbers=NUMBERS)
        for site in self.federation.manifest.ids:
            folder = self.folder / str(site)
            folder.mkdir(mode=0o700)
            signer(site).save(folder / "identity")
            self.open(site)
        self.sessions = 0
        self.last_set: dict[int, frozenset[int]] = {}  # of each unmasking site, in any session
        self.spent: dict[int, set[bytes]] = {}  # bindings that each unmasking site answered
        self.used: dict[int, set[bytes]] = {}  # bindings that each site reported under
        self.exchanges: set[bytes] = set()
        self.plain: dict[bytes, np.ndarray] = {}  # vector of each report, by its signature
        self.last_report: dict[int, int] = {}
        self.begin()

    def open(self, site: int) -> None:
        self.federation.stores[site] = SqliteKeyStore.open(self.folder / str(site))

    @precondition(lambda self: max(self.last_report.values(), default=0) > NUMBERS // 2)
    @rule()
    def begin(self) -> None:
        """Open another session: whatever was open in the last one is closed for its unmasking sites."""
        self.sessions += 1
        self.federation = self.federation.again(bytes([self.sessions]) * 32, NUMBERS)
        self.last_report = {}
        self.reports: dict[tuple[int, int], dict[int, object]] = {}
        self.answers: dict[int, dict[int, tuple[bytes, object, tuple]]] = {
            site: {} for site in self.federation.session.unmaskers
        }

    def aggregation(self, number: int, binding: int):
        """Two models for each number; one of them is that of other numbers and of other sessions too."""
        model = digest("model", self.sessions, number) if binding == 0 else digest("one model", number // 2)
        return self.federation.aggregation(number, model)

    @rule(site=SITE)
    def restart(self, site: int) -> None:
        if site in self.federation.stores:
            self.federation.stores[site].close()
            self.open(site)

    @rule(site=SITE)
    def enrol_again(self, site: int) -> None:
        """The same keys until one is used; then, and from sites that were not asked, none."""
        if site not in self.federation.manifest.ids:
            return
        federation = self.federation
        asked = site in federation.session.unmaskers
        unused = asked and self.last_report.get(site, 0) == 0 and not self.answers[site]
        try:
            keys = enrol(federation.stores[site], federation.manifest, federation.session)
        except Refusal as refusal:
            self.expect(refusal, Code.E_ROUND, Code.E_POLICY, unless=unused)
            return
        assert asked
        assert keys == federation.opening.received[site]

    @rule(site=SITE, number=NUMBER, binding=BINDING, seed=st.integers(0, 2**32))
    def ask_for_a_report(self, site: int, number: int, binding: int, seed: int) -> None:
        if site not in self.federation.manifest.ids:
            return
        federation, aggregation = self.federation, self.aggregation(number, binding)
        vector = np.random.default_rng(seed).integers(-CODEC.limit, CODEC.limit + 1, CODEC.dimension)
        try:
            keys = federation.keys(number)
            report = mask(federation.stores[site], aggregation, keys, CODEC.encode(vector))
        except Refusal as refusal:
            free = number > self.last_report.get(site, -1) and aggregation.binding not in self.used.get(site, ())
            self.expect(refusal, Code.E_ROUND, Code.E_MODEL, unless=free)
            return
        assert number > self.last_report.get(site, -1)
        assert aggregation.binding not in self.used.setdefault(site, set())
        self.used[site].add(aggregation.binding)
        assert report.exchange not in self.exchanges
        self.exchanges.add(report.exchange)
        self.last_report[site] = number
        self.plain[report.signature] = vector
        self.reports.setdefault((number, binding), {})[site] = report

    @rule(ahead=AHEAD, binding=BINDING, others=FEW, absent=FEW)
    def ask_all_for_reports(self, ahead: int, binding: int, others: set[int], absent: set[int]) -> None:
        """A round under a later number; some sites may be shown the other model."""
        number = max(self.last_report.values(), default=-1) + ahead
        for site in self.federation.manifest.ids:
            if site not in absent and number < NUMBERS:
                self.ask_for_a_report(site, number, 1 - binding if site in others else binding, seed=site)

    @precondition(lambda self: self.reports)
    @rule(place=st.integers(0, 2), pick=PICK, left_out=st.sets(SITE, max_size=2), mixed=st.booleans())
    def ask_for_masks(self, place: int, pick: int, left_out: set[int], mixed: bool) -> None:
        """Most of the reports of one number, now and then with those of another model among them."""
        number, binding = sorted(self.reports)[::-1][pick % len(self.reports)]
        site = self.federation.session.unmaskers[place % len(self.federation.session.unmaskers)]
        reports = self.reports.get((number, 1 - binding), {}) if mixed else {}
        reports = reports | self.reports[number, binding]
        self.ask(site, number, binding, [reports[each] for each in sorted(reports) if each not in left_out])

    @precondition(lambda self: self.reports)
    @rule(pick=PICK, left_out=st.integers(0, 6))
    def close_as_an_honest_coordinator(self, pick: int, left_out: int) -> None:
        """Add, close and ask all: with or without one site, so that it may come as a second question."""
        number, binding = sorted(self.reports)[::-1][pick % len(self.reports)]
        aggregation = self.aggregation(number, binding)
        state = Collecting.open(aggregation, self.federation.manifest.ids)
        for site, report in self.reports.get((number, binding), {}).items():
            if site != left_out:
                state = state.receive(site, report)
        if len(state.reports) < 2:
            return
        closed, asked = state.close(), list(state.reports)
        for site in self.federation.session.unmaskers:
            total = self.ask(site, number, binding, [self.reports[number, binding][each] for each in sorted(asked)])
            if total is not None:
                closed = closed.receive(site, total)
        if not closed.missing:
            expected = sum(self.plain[self.reports[number, binding][each].signature] for each in asked)
            np.testing.assert_array_equal(closed.open(CODEC).values, expected)

    def ask(self, site: int, number: int, binding: int, reports: list):
        """One question to one unmasking site, compared with what the model allows; its answer, if there is one."""
        store, aggregation = self.federation.stores[site], self.aggregation(number, binding)
        members = tuple(member_of(report, None) for report in reports)
        question = set_digest(aggregation.context, members)
        legal = self.legal(site, number, aggregation.binding, question, reports)
        try:
            total = unmask(store, aggregation, members)
        except Refusal as refusal:
            self.expect(refusal, Code.E_SET, Code.E_ROUND, Code.E_MODEL, Code.E_SIG, unless=legal)
            return None
        assert legal
        earlier = self.answers[site].get(number)
        assert earlier is None or earlier[:2] == (question, total)
        self.answers[site][number] = (question, total, (binding, tuple(reports)))
        self.last_set[site] = frozenset(report.site for report in reports)
        self.spent.setdefault(site, set()).add(aggregation.binding)
        return total

    def legal(self, site: int, number: int, binding: bytes, question: bytes, reports: list) -> bool:
        """What the protocol promises to answer, in the words of its specification."""
        answers = self.answers[site]
        if number in answers:
            return answers[number][0] == question and number == max(answers)
        own = [key for key, found in self.reports.items() if key[0] == number and site in found]
        chosen = frozenset(report.site for report in reports)
        differ = len(self.last_set.get(site, chosen) ^ chosen)
        return (
            number > max(answers, default=-1)
            and number >= self.last_report.get(site, 0)
            and len(reports) >= 2
            and all(report in self.reports.get((number, self.kind(number, binding)), {}).values() for report in reports)
            and all(self.aggregation(*key).binding == binding for key in own)
            and binding not in self.spent.get(site, ())
            and not 0 < differ < self.federation.manifest.rules.overlap_min
        )

    def kind(self, number: int, binding: bytes) -> int:
        return next(each for each in range(BINDINGS) if self.aggregation(number, each).binding == binding)

    @precondition(lambda self: any(self.answers.values()))
    @rule(number=NUMBER)
    def add_up_what_was_answered(self, number: int) -> None:
        """All answers under one number: the exact sum if they are to one set, noise and E_SUM_CHECK if not."""
        answers = [self.answers[site].get(number) for site in self.federation.session.unmaskers]
        if None in answers:
            return
        lanes = CODEC.ring.zeros()
        reports = answers[0][2][1]
        for report in reports:
            lanes += unpack(CODEC.ring, report.body)
        for _, total, _ in answers:
            lanes -= unpack(CODEC.ring, total.body)
        try:
            opened = CODEC.open_sum(reduce(CODEC.ring, lanes), len(reports))
        except Refusal as refusal:
            self.expect(refusal, Code.E_SUM_CHECK, unless=len({question for question, _, _ in answers}) == 1)
            return
        assert len({question for question, _, _ in answers}) == 1
        np.testing.assert_array_equal(opened.values, sum(self.plain[report.signature] for report in reports))

    @staticmethod
    def expect(refusal: Refusal, *codes: Code, unless: bool) -> None:
        assert not unless, refusal
        assert refusal.code in codes

    @invariant()
    def no_seed_outlives_its_number(self) -> None:
        for site in getattr(self, "answers", {}):
            seeds = self.federation.stores[site].seeds(self.federation.session.sid)
            over = max(max(self.answers[site], default=-1) + 1, self.last_report.get(site, 0))
            assert sorted(seeds) == list(range(over, NUMBERS))

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            for store in self.federation.stores.values():
                store.close()
            shutil.rmtree(self.folder)


TestHostileCoordinator = HostileCoordinator.TestCase
TestHostileCoordinator.settings = settings(max_examples=40, stateful_step_count=40)

"""Sites without sockets: answers come in the order of their simulated times, and silence lasts until the deadline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from common.messages import COORDINATOR, seal
from simulations.agents import Agents
from simulations.course import Course
from simulations.faults import CrashSettings, FaultSettings, StragglerSettings
from simulations.local_sites import LocalSites
from tests.worlds import Desk, close, desk_of, scenario

PACE = StragglerSettings(seconds=60.0, spread=1.0)


class Obedient(dict[int, None]):
    """Agents that answer anything at once; whom they answered is remembered."""

    def __init__(self) -> None:
        super().__init__(dict.fromkeys((1, 2, 3)))
        self.asked: list[int] = []

    def handle(self, site: int, frame: bytes) -> bytes:
        self.asked.append(site)
        return b"answer"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = desk_of(scenario("none"), Path(tmp_path_factory.mktemp("local")) / "world")
    yield made
    close(made)


def sites_of(desk: Desk, **faults: Any) -> tuple[LocalSites, Obedient]:
    agents = Obedient()
    course = Course(FaultSettings(**{"stragglers": PACE, **faults}), 5, desk.work.manifest)
    return LocalSites(cast("Agents", agents), course), agents


@pytest.fixture(scope="module")
def work(desk: Desk) -> bytes:
    return seal(COORDINATOR, desk.work_order(), desk.signer)


def test_the_quickest_answers_first_and_whoever_has_enough_waits_no_longer(desk: Desk, work: bytes) -> None:
    sites, _ = sites_of(desk)
    course = sites.course
    came = [(site, course.clock.now()) for site, answer in sites.ask(work, {1, 2, 3}, 1e4) if answer]
    assert came == sorted(((site, course.usual(site)) for site in (1, 2, 3)), key=lambda each: each[1])
    hasty, _ = sites_of(desk)
    first, answer = next(iter(hasty.ask(work, {1, 2, 3}, 1e4)))
    assert (first, answer, hasty.course.clock.now()) == (came[0][0], b"answer", came[0][1])


def test_a_late_site_works_and_is_silent_until_the_deadline(desk: Desk, work: bytes) -> None:
    """Must: let it work, and be charged. Must not: hand over what came too late."""
    sites, agents = sites_of(desk)
    slowest = max((1, 2, 3), key=sites.course.usual)
    deadline = sites.course.usual(slowest) - 1.0
    heard = list(sites.ask(work, {1, 2, 3}, deadline))
    assert heard[-1] == (slowest, None)
    assert sorted(agents.asked) == [1, 2, 3]
    assert sites.course.clock.now() == deadline
    assert sites.present() == {1, 2, 3}


def test_a_busy_site_answers_other_orders_when_it_is_done_and_not_after_their_deadline(desk: Desk, work: bytes) -> None:
    sites, agents = sites_of(desk)
    slowest = max((1, 2, 3), key=sites.course.usual)
    _ = list(sites.ask(work, {slowest}, 1.0))
    agents.asked.clear()
    offer = seal(COORDINATOR, desk.offer(), desk.signer)
    assert list(sites.ask(offer, {slowest}, 1.0)) == [(slowest, None)]
    assert agents.asked == [], "the order was over before the site was free"
    assert list(sites.ask(offer, {slowest}, 1e4)) == [(slowest, b"answer")]
    assert sites.course.clock.now() == sites.course.usual(slowest)


def test_a_site_that_is_down_is_known_to_be_at_once(desk: Desk, work: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    sites, agents = sites_of(desk, crashes=CrashSettings(chance=0.999, seconds=1e5))
    monkeypatch.setattr(agents, "die", lambda site, frame, crash: None, raising=False)
    _ = list(sites.ask(work, {2}, 1e4))
    assert sites.present() == {1, 3}
    now = sites.course.clock.now()
    assert list(sites.ask(seal(COORDINATOR, desk.offer(), desk.signer), {2, 3}, 1e4)) == [(2, None), (3, b"answer")]
    assert sites.course.clock.now() == now

"""Sites over a Grid: each answered once, none past the deadline, whatever the Grid does."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from common.errors import Code, Refusal
from deploy.authority import NodeKey, make_node_key
from server.grid import GridSites, canonical_key


@dataclass
class Message:
    contents: Any
    node: int
    seconds: float


class Post:
    """Frames as they are; `None` is an error reply, `b"torn"` one that cannot be read."""

    def contents(self, frame: bytes) -> Any:
        return SimpleNamespace(frame=frame)

    def message(self, contents: Any, node: int, seconds: float) -> Message:
        return Message(contents, node, seconds)

    def frame(self, reply: Any) -> bytes | None:
        if reply.frame == b"torn":
            raise Refusal(Code.MESSAGE_INVALID, "no", "no", "no")
        return reply.frame  # type: ignore[no-any-return]


@dataclass
class Grid:
    """A Grid in memory: node n answers its frame with `answers[n]` after `delays[n]` seconds."""

    nodes: dict[int, bytes]
    offline: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    answers: dict[int, bytes | None] = field(default_factory=dict)
    delays: dict[int, float] = field(default_factory=dict)
    twice: bool = False
    failures: int = 0
    outages: int = 0
    sent: list[Message] = field(default_factory=list)

    def get_nodes(self) -> Iterable[Any]:
        self._fail()
        for node, key in self.nodes.items():
            status = "offline" if node in self.offline else "online"
            yield SimpleNamespace(node_id=node, public_key=key, status=status)

    def push_messages(self, messages: list[Message]) -> list[str]:
        self._fail()
        self.began, first = time.monotonic(), len(self.sent)
        self.sent += messages
        return ["" if m.node in self.refused else f"m{first + i}" for i, m in enumerate(messages)]

    def pull_messages(self, message_ids: list[str]) -> Iterable[Any]:
        self._fail()
        if self.outages:
            self.outages -= 1
            raise TimeoutError("the server is slow")
        for asked in message_ids:
            message = self.sent[int(asked[1:])]
            if message.node in self.delays and time.monotonic() - self.began < self.delays[message.node]:
                continue
            frame = self.answers.get(message.node, message.contents.frame)
            for _ in range(1 + self.twice):
                yield SimpleNamespace(frame=frame, metadata=SimpleNamespace(reply_to_message_id=asked))

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the server is away")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[int, NodeKey]:
    folder: Path = tmp_path_factory.mktemp("keys")
    return {site: make_node_key(folder / str(site)) for site in (1, 2, 3)}


@pytest.fixture
def grid(keys: dict[int, NodeKey]) -> Grid:
    return Grid(nodes={100 * site: key.public for site, key in keys.items()})


@pytest.fixture
def sites(grid: Grid, keys: dict[int, NodeKey]) -> GridSites:
    return GridSites(grid, Post(), {site: key.openssh for site, key in keys.items()})


def test_a_broadcast_is_one_content_and_comes_back_from_every_site(grid: Grid, sites: GridSites):
    assert dict(sites.ask(b"hello", [1, 2, 3], 5)) == dict.fromkeys((1, 2, 3), b"hello")
    assert len({id(message.contents) for message in grid.sent}) == 1
    assert {message.seconds for message in grid.sent} == {5}


def test_a_frame_for_each_site_reaches_that_site(grid: Grid, sites: GridSites):
    assert dict(sites.ask({1: b"a", 2: b"b"}, [1, 2], 5)) == {1: b"a", 2: b"b"}
    assert {message.node: message.contents.frame for message in grid.sent} == {100: b"a", 200: b"b"}


def test_replies_come_as_they_arrive(grid: Grid, sites: GridSites):
    grid.delays = {100: 0.5}
    assert [site for site, _ in sites.ask(b"x", [1, 2], 5)] == [2, 1]


def test_a_site_that_is_silent_is_none_at_the_deadline(grid: Grid, sites: GridSites):
    grid.delays = {200: 60}
    began = time.monotonic()
    assert dict(sites.ask(b"x", [1, 2], 0.4)) == {1: b"x", 2: None}
    assert 0.3 < time.monotonic() - began < 0.8


def test_a_site_that_is_away_refused_or_unknown_is_none_at_once(grid: Grid, sites: GridSites):
    grid.offline, grid.refused = {100}, {200}
    began = time.monotonic()
    assert dict(sites.ask(b"x", [1, 2, 3, 9], 5)) == {1: None, 2: None, 3: b"x", 9: None}
    assert time.monotonic() - began < 1


def test_an_error_or_a_torn_reply_is_none(grid: Grid, sites: GridSites):
    grid.answers = {100: None, 200: b"torn"}
    assert dict(sites.ask(b"x", [1, 2, 3], 5)) == {1: None, 2: None, 3: b"x"}


def test_a_second_reply_is_not_looked_at(grid: Grid, sites: GridSites):
    grid.twice = True
    assert [site for site, _ in sites.ask(b"x", [1, 2], 5)] == [1, 2]


def test_a_late_reply_is_not_given_to_the_next_question(grid: Grid, sites: GridSites):
    grid.delays = {100: 0.3}
    assert dict(sites.ask(b"first", [1], 0.1)) == {1: None}
    time.sleep(0.3)
    assert dict(sites.ask(b"second", [1], 5)) == {1: b"second"}


def test_an_outage_while_replies_are_awaited_is_survived(grid: Grid, sites: GridSites):
    grid.outages = 3
    assert dict(sites.ask(b"x", [1], 5)) == {1: b"x"}
    assert grid.outages == 0


def test_a_server_that_never_answers_costs_the_deadline_and_no_error(grid: Grid, sites: GridSites):
    grid.failures = 10**6
    assert dict(sites.ask(b"x", [1, 2], 0.3)) == {1: None, 2: None}


def test_only_sites_of_the_manifest_that_are_online_are_present(grid: Grid, sites: GridSites, tmp_path: Path):
    grid.offline = {200}
    grid.nodes[999] = make_node_key(tmp_path / "stranger").public
    assert sites.present() == {1, 3}


def test_a_node_that_got_another_number_is_the_same_site(grid: Grid, sites: GridSites, keys: dict[int, NodeKey]):
    assert dict(sites.ask(b"x", [1], 5)) == {1: b"x"}
    grid.nodes = {777: keys[1].public}
    sites.present()
    assert dict(sites.ask(b"y", [1], 5)) == {1: b"y"}
    assert grid.sent[-1].node == 777


def test_two_sites_with_one_key_are_refused(grid: Grid, keys: dict[int, NodeKey]):
    with pytest.raises(Refusal, match="two have one node key"):
        GridSites(grid, Post(), {1: keys[1].openssh, 2: keys[1].public})


def test_a_key_is_known_in_both_its_forms(keys: dict[int, NodeKey]):
    assert canonical_key(keys[1].openssh) == canonical_key(keys[1].public) != canonical_key(keys[2].public)
    with pytest.raises(Refusal, match="neither PEM nor OpenSSH"):
        canonical_key("a key")

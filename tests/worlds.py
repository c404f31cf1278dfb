"""Small federations in one process for tests: scenarios by mode, a desk that signs orders, lines that can break."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from client.policy import Policy
from client.policy_file import PolicyFile
from client.session import Session, open_session
from common.config import load, plain, read_table
from common.frames import unpack
from common.identity import Signer
from common.messages import (
    COORDINATOR,
    LIMIT,
    AnyOrder,
    AnyReply,
    Enrolled,
    EnrolOrder,
    Envelope,
    OfferOrder,
    Refused,
    WorkOrder,
    open_reply,
    seal,
    sealed_digest,
)
from common.parameters import flatten
from common.secagg.wire import RoundKeys, SessionRecord
from common.work import Work, model_of, work_of
from deploy.provision import FederationFolder
from server.coordinator import RunSettings
from server.enrolment import open_session as open_aggregation
from server.gathering import Questions
from server.job import prepared
from simulations.datasets import dataset
from simulations.provision import settle
from simulations.scenario import Scenario, example

torch.set_num_threads(1)
RUN = bytes(16)

PRIVACY: dict[str, dict[str, Any]] = {
    "none": {"mode": "none"},
    "M1": {
        "mode": "M1",
        "unit": "record",
        "epsilon": 8.0,
        "delta": 1e-5,
        "clip": 1.0,
        "sampling_rate": 0.5,
        "spare_rounds": 2,
        "evaluation_epsilon": 3.0,
    },
    "M2": {
        "mode": "M2",
        "unit": "record",
        "epsilon": 8.0,
        "delta": 1e-5,
        "clip": 1.0,
        "sampling_rate": 1.0,
        "spare_rounds": 2,
        "colluding": 0,
        "metric_share": 0.5,
        "loss_bound": 3.0,
        "evaluation_epsilon": 3.0,
    },
}


def scenario(mode: str = "M2", changes: Mapping[str, Any] | None = None, *, base: str = "clinics") -> Scenario:
    """Three sites of an example, two of which unmask and may go on alone; `changes` by dotted name."""
    table = read_table(example(base))
    job, world = table["job"], table["world"]
    world |= {"unmaskers": 2, "partition": {**world["partition"], "sites": 3}}
    job |= {"rounds": 3, "privacy": {**PRIVACY[mode], "noise": "replay"}, "data": plain(dataset(base).schema)}
    job["aggregation"] |= {"quorum": 2, "session_rounds": 16, "deadline_seconds": 0.2}
    for name in ("bits", "bound"):
        job["aggregation"].pop(name, None)
    if mode != "M2":
        job["training"] |= {"learning_rate": 0.5, "local_steps": 4}
        job["aggregation"] |= {"strategy": "fedavg", "bits": 24, "bound": 2.0}
    for name, value in (changes or {}).items():
        *folders, last = name.split(".")
        inner = table
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = value
    return load(Scenario, table)


@dataclass
class Desk:
    """The coordinator's hand in a federation: it signs any order and reads what comes back."""

    federation: FederationFolder
    work: Work
    signer: Signer
    sessions: dict[int, Session]

    @property
    def job(self) -> bytes:
        return self.work.job.to_bytes()

    def offer(self) -> OfferOrder:
        return OfferOrder(run=RUN, job=self.job)

    def sent(self, site: int, order: AnyOrder) -> bytes:
        """What leaves the site, sealed."""
        return self.sessions[site].handle(seal(COORDINATOR, order, self.signer))

    def ask(self, site: int, order: AnyOrder) -> AnyReply:
        frame = seal(COORDINATOR, order, self.signer)
        identity = self.work.manifest.site(site).identity
        return open_reply(self.sessions[site].handle(frame), site, identity, sealed_digest(frame))

    def opened(self, sid: bytes = bytes(32)) -> tuple[SessionRecord, dict[int, tuple[RoundKeys, ...]]]:
        """A session of aggregations over all sites, and the keys that its unmasking sites made."""
        draw = torch.Generator().manual_seed(1)
        manifest = self.work.manifest
        numbers = range(self.work.job.aggregation.session_rounds)
        session = open_aggregation(manifest, self.work.job.digest(), manifest.ids, numbers, sid=sid, draw=draw)
        replies = {
            site: self.ask(site, EnrolOrder(run=RUN, job=self.job, session=session)) for site in session.unmaskers
        }
        return session, {site: reply.keys for site, reply in replies.items() if isinstance(reply, Enrolled)}

    def work_order(self, **changes: Any) -> WorkOrder:
        """An order to train in round 1; `changes` replace its fields."""
        session, keys = changes.pop("opened", None) or self.opened()
        number = changes.get("number", 0)
        fields: dict[str, Any] = {
            "run": RUN,
            "job": self.job,
            "task": "train",
            "round": 1,
            "attempt": 0,
            "number": number,
            "session": session,
            "keys": tuple(keys[site][number] for site in session.unmaskers),
            "parameters": flatten(model_of(self.work.job)).tobytes(),
            "heads": (),
        }
        return WorkOrder(**{**fields, **changes})

    def charges(self, site: int) -> list[str]:
        """Kinds of the entries in the site's ledger."""
        ledger = self.sessions[site]._holdings.ledger(self.work.job.dataset)
        return [entry.kind.value for entry in ledger.entries]


def desk_of(made: Scenario, folder: Path) -> Desk:
    """The federation of a scenario with all its sessions open; `close` them."""
    federation = settle(made, folder)
    work = work_of(prepared(made.job, federation.manifest), federation.manifest)
    sessions = {site.id: open_session(site.settings) for site in federation.sites}
    return Desk(federation, work, Signer.load(federation.coordinator / "identity.key"), sessions)


def under(policy: Policy) -> PolicyFile:
    """Rules that no file holds, for a session or its holdings."""
    return cast("PolicyFile", SimpleNamespace(now=policy))


def code_of(reply: AnyReply) -> str:
    """The code of a reply that must be a refusal."""
    assert isinstance(reply, Refused), reply
    return reply.code


def close(desk: Desk) -> None:
    for session in desk.sessions.values():
        session.close()


Line = Callable[[int, AnyOrder, Callable[[], bytes]], bytes | None]


def straight(site: int, order: AnyOrder, answer: Callable[[], bytes]) -> bytes | None:
    """A line that carries everything."""
    return answer()


@dataclass
class Lines:
    """`Sites` over sessions in this process, where a test decides what becomes of each frame.

    line  gets the site, the order and a call that lets the site work and gives its answer; None loses the answer
    """

    desk: Desk
    line: Line = straight
    away: frozenset[int] = frozenset()

    def present(self) -> frozenset[int]:
        return frozenset(self.desk.sessions) - self.away

    def ask(
        self, frames: bytes | Mapping[int, bytes], to: Collection[int], deadline_seconds: float
    ) -> Iterator[tuple[int, bytes | None]]:
        for site in sorted(to):
            frame = frames[site] if isinstance(frames, Mapping) else frames
            session = self.desk.sessions[site]
            yield site, self.line(site, order_in(frame), lambda session=session, frame=frame: session.handle(frame))


def order_in(frame: bytes) -> AnyOrder:
    order: AnyOrder = unpack(AnyOrder, unpack(Envelope, frame, LIMIT).body, LIMIT)  # type: ignore[arg-type]
    return order


def questions_of(desk: Desk, lines: Lines | None = None) -> Questions:
    return Questions(lines or Lines(desk), desk.work.manifest, desk.signer)


def settings_of(desk: Desk, *, resume: bool = False) -> RunSettings:
    folder = desk.federation.coordinator
    return RunSettings(federation=folder, job=folder / "job.toml", state=folder / "state", resume=resume)

"""Work on records: a charge first, then the training or counting, noise, mask; the reply is kept for a repeat."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.bench import workbench
from client.craft import Assignment, Craft, OwnCraft
from client.custody import KeyStore
from client.evaluation import counts
from client.guard import Guard, Inner, Release, Reservation
from client.holding import Holding, Holdings
from client.secagg import mask, place_of, refuse_reported
from client.site import SiteSettings
from client.site_level import bounded, turned
from client.trainer import Workbench
from common.errors import Code, Refusal
from common.frames import pack, unpack
from common.messages import LIMIT, Reported, WorkOrder
from common.parameters import Flat, checked
from common.privacy.clipped import Counted, PrivateUpdate
from common.privacy.entries import Facts
from common.privacy.ledger import Ledger
from common.privacy.units import Unit
from common.randomness import Entropy
from common.secagg.codec import Encoded, IntegerCodec
from common.secagg.distributed import DistributedCodec
from common.secagg.pairwise.orders import AdvertiseOrder
from common.secagg.statements import Aggregation, verify_keys
from common.work import Work, count_shape

AnyWork = WorkOrder | AdvertiseOrder  # they ask for the same work, and differ in how its result is masked


class Paid(NamedTuple):
    """Records that may be worked on: the charge for one release of them is on disk.

    local  a second charge for the same release: for single records, inside what is noised for the site
    """

    holding: Holding
    guard: Guard
    reservation: Reservation
    local: Reservation | None


class Contribution(NamedTuple):
    """A release as lanes that are not yet masked, what the data set has spent with it, and the ledger's head."""

    encoded: Encoded
    epsilon: float
    head: bytes


class Labour:
    """What a site computes for orders of work. It keeps the job's model on the device between orders."""

    def __init__(self, settings: SiteSettings, store: KeyStore, holdings: Holdings, craft: Craft | None = None):
        self._settings, self._store, self._holdings = settings, store, holdings
        self._craft = craft or OwnCraft()
        self._benches: dict[bytes, Workbench] = {}

    def report(self, order: WorkOrder, work: Work, digest: bytes) -> Reported:
        """The masked report of one attempt; an order that was answered before gets the same bytes again, for nothing.

        Errors: Refusal of every kind.
        """
        ledger = self._holdings.ledger(work.job.dataset)
        if kept := ledger.reply_to(digest.hex()):
            return unpack(Reported, kept, LIMIT)
        parameters = self.parameters(order, work)
        aggregation = self._aggregation(order, work, parameters)
        yielded = self.contribution(order, work, digest, parameters)
        report = mask(self._store, aggregation, order.keys, yielded.encoded)
        reply = Reported(order=digest, report=report, epsilon=yielded.epsilon, head=yielded.head)
        ledger.keep_reply(digest.hex(), pack(reply))
        return reply

    def parameters(self, order: AnyWork, work: Work) -> Flat:
        """The order's parameters, if the site's ledger was not rolled back since the coordinator last saw it.

        Errors: Refusal LEDGER_ROLLED_BACK, UPDATE_INVALID.
        """
        for known in order.heads:
            if known.site == self._settings.id:
                self._holdings.ledger(work.job.dataset).refuse_rollback(known.head)
        return _parameters(order, work.layout.size)

    def contribution(self, order: AnyWork, work: Work, digest: bytes, parameters: Flat) -> Contribution:
        """What the site adds to one sum, paid for.

        Nothing is charged for an order that cannot be answered, and no record is read for one that cannot be paid;
        a charge is on disk before records are worked on.
        Errors: Refusal of every kind.
        """
        ledger, guard = self._holdings.ledger(work.job.dataset), self._holdings.guard(work.job.dataset)
        self._refuse_unseeded(work)
        self._bench(work).load(parameters)
        plans = work.plans(order.task)
        guard.refuse_early(plans[-1], order.run.hex(), order.round)
        for plan in plans:
            guard.refuse_beyond(plan)
        holding = self._holdings.open(work.job.dataset, work.job.data)
        *local, reservation = [guard.reserve(plan, _facts(order, work, digest)) for plan in plans]
        try:
            release = self._released(order, work, Paid(holding, guard, reservation, local[0] if local else None))
        except Exception as error:
            for charge in (*local, reservation):
                guard.abort(charge, error.code if isinstance(error, Refusal) else Code.INTERNAL)
            raise
        encoded = self._craft.sent(self._encoded(order, work, release), self._assignment(order, work))
        return Contribution(encoded, _stated(ledger, work), release.head)

    def _aggregation(self, order: WorkOrder, work: Work, parameters: Flat) -> Aggregation:
        """What the report will be bound to, checked before anything is charged."""
        aggregation = Aggregation(
            manifest=work.manifest,
            session=order.session,
            number=order.number,
            binding=work.binding(order, parameters, work.group_of(order.session, order.number)),
            ring=work.codec(order.task).ring,
            groups=work.job.aggregation.groups,
        )
        verify_keys(work.manifest, order.session, order.number, order.keys, self._settings.id)
        refuse_reported(self._store, place_of(aggregation))
        return aggregation

    def _released(self, order: AnyWork, work: Work, paid: Paid) -> Release:
        noise = self._assignment(order, work).entropy("noise")
        if order.task == "evaluate":
            bench = self._bench(work)
            counted = Counted(counts(bench, bench.seen(paid.holding.holdout), count_shape(work.job)))
            return paid.guard.release_counts(paid.reservation, counted, noise)
        return self._trained(order, work, paid, noise)

    def _trained(self, order: AnyWork, work: Work, paid: Paid, noise: Entropy) -> Release:
        bench, bound, given = self._bench(work), work.job.aggregation.bound or 0.0, self._assignment(order, work)
        plan, train = paid.reservation.plan, bench.seen(paid.holding.train)
        if plan.mode == "M2":
            return paid.guard.release_sum(paid.reservation, self._craft.gradients(bench, train, plan, given), noise)
        if plan.unit is Unit.SITE:
            inner = Inner(paid.local, self._privately(paid, paid.local, given, bench)) if paid.local else None
            change = inner.update.value if inner else self._craft.plainly(bench, train, given)
            vector = turned(bounded(change, plan, order.clip), plan, work.turn(order.round))
            return paid.guard.release_site(paid.reservation, vector, noise, inner)
        if plan.mode == "M1":
            update = self._privately(paid, paid.reservation, given, bench)
            return paid.guard.release_update(paid.reservation, update, bound)
        return paid.guard.release_plain(paid.reservation, self._craft.plainly(bench, train, given), bound)

    def _privately(self, paid: Paid, charge: Reservation, given: Assignment, bench: Workbench) -> PrivateUpdate:
        """Local steps with noise for single records, paid for by `charge`, whose marks say how far they went."""
        executed = partial(paid.guard.executed, charge)
        return self._craft.privately(bench, bench.seen(paid.holding.train), charge.plan, given, executed)

    def _assignment(self, order: AnyWork, work: Work) -> Assignment:
        return Assignment(
            site=self._settings.id,
            task=order.task,
            round=order.round,
            attempt=order.attempt,
            seed=work.job.seed,
            noise=work.job.privacy.noise,
            noise_seed=self._settings.noise_seed,
            nominal_records=work.manifest.site(self._settings.id).nominal_records,
        )

    def _encoded(self, order: AnyWork, work: Work, release: Release) -> Encoded:
        codec = work.codec(order.task)
        if isinstance(codec, IntegerCodec):
            return codec.encode(release.lanes.astype(np.int64, copy=False))
        if isinstance(codec, DistributedCodec):
            return codec.framed(release.lanes.astype(np.int64, copy=False))
        lanes: NDArray[np.float64] = release.lanes.astype(np.float64, copy=False)
        given = self._assignment(order, work)
        return codec.encode(lanes, given.entropy("rounding"), records=float(given.nominal_records))

    def _refuse_unseeded(self, work: Work) -> None:
        if work.job.privacy.noise == "replay" and self._settings.noise_seed is None:
            raise Refusal(
                Code.POLICY_PRIVACY, "Noise not replayed", "site.toml has no noise_seed", "Only rehearsals need one"
            )

    def _bench(self, work: Work) -> Workbench:
        key = work.job.digest()
        if key not in self._benches:
            nominal = work.manifest.site(self._settings.id).nominal_records
            self._benches = {key: workbench(work.job, nominal, self._settings.device, self._settings.engine)}
        return self._benches[key]


def _stated(ledger: Ledger, work: Work) -> float:
    """What the data set has spent at the job's own delta; infinite where the job promises nothing."""
    delta = work.job.privacy.delta
    return ledger.spending(delta).gated if delta is not None else float("inf")


def _facts(order: AnyWork, work: Work, digest: bytes) -> Facts:
    return Facts(
        run=order.run.hex(),
        job=work.job.digest().hex(),
        round=order.round,
        attempt=order.attempt,
        number=order.number,
        order=digest.hex(),
        model=hashlib.sha256(order.parameters).hexdigest(),
    )


def _parameters(order: AnyWork, size: int) -> Flat:
    """The order's parameters, finite, float32 [size]. Errors: Refusal UPDATE_INVALID."""
    whole = order.parameters if len(order.parameters) % 4 == 0 else b""
    flat: Flat = np.frombuffer(whole, "<f4")
    checked(flat, size)
    return flat

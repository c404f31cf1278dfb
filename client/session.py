"""One order at a site: signature, policy, charge, work, noise, mask, reply. A refusal changes nothing."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from client.craft import Craft
from client.custody import KeyStore
from client.fitting import refuse_mixed, refuse_stranger, refuse_thin, refuse_unknown_group
from client.holding import Holdings
from client.keystore import SqliteKeyStore
from client.labour import Labour
from client.pair_orders import PairOrders
from client.policy import TaskName, decide
from client.policy_file import PolicyFile
from client.recovery import deal, keep, own_box, release
from client.secagg import enrol, unmask
from client.site import SiteSettings, read_site
from common.errors import Code, Refusal
from common.job import Job, job_from_bytes
from common.messages import (
    Accepted,
    AnyOrder,
    AnyReply,
    DealOrder,
    Dealt,
    Enrolled,
    EnrolOrder,
    KeepOrder,
    Kept,
    LedgerOrder,
    LedgerReply,
    OfferOrder,
    RecoverOrder,
    Refused,
    Released,
    Unmasked,
    UnmaskOrder,
    WorkOrder,
    open_order,
    seal,
)
from common.secagg.manifest import Manifest, read_manifest
from common.secagg.pairwise.orders import AdvertiseOrder
from common.secagg.statements import Aggregation
from common.work import Work, whole_run, work_of

log = logging.getLogger(__name__)
_NO_ORDER = bytes(32)


def open_session(path: Path, craft: Craft | None = None, *, durable: bool = True) -> Session:
    """The session of the site whose site.toml is at `path`.

    craft    how its updates are computed, if not from its own records at its own machine
    durable  whether its files must outlive the machine's fall; those of a world need only outlive its process
    Errors: Refusal FILE_MISSING, CONFIG_INVALID, E_MANIFEST (site or key is not in it), KEYS_LOCKED.
    """
    settings = read_site(path)
    if settings.threads > 0:
        torch.set_num_threads(settings.threads)
    policy = PolicyFile(Path(settings.policy))
    governance = settings.federation.governance
    manifest = read_manifest(Path(settings.federation.manifest), bytes.fromhex(governance))
    store = SqliteKeyStore.open(Path(settings.state), durable=durable)
    if manifest.site_of(store.identity.public).id != settings.id:
        store.close()
        raise Refusal(
            Code.E_MANIFEST,
            f"Site {settings.name!r} not opened",
            f"the manifest gives its key another id than {settings.id}",
            "Correct id in site.toml, or ask governance for the manifest in force",
        )
    session = Session(settings, policy, manifest, store, craft=craft, durable=durable)
    session.take_up()
    return session


class Session:
    """A site at work. It remembers its open data sets and the job in force; everything else is on disk."""

    def __init__(
        self,
        settings: SiteSettings,
        policy: PolicyFile,
        manifest: Manifest,
        store: SqliteKeyStore,
        *,
        craft: Craft | None = None,
        durable: bool = True,
    ):
        self._settings, self._policy, self._manifest = settings, policy, manifest
        self._store: KeyStore = store
        self._close = store.close
        self._holdings = Holdings(settings, policy, store.identity, store, durable=durable)
        self._labour = Labour(settings, store, self._holdings, craft)
        self._pairs = PairOrders(manifest, store, self._labour)
        self._works: dict[bytes, Work] = {}

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, data: bytes) -> bytes:
        return self.handle(data)

    def take_up(self) -> None:
        """Open the ledgers that there are, so that work which was interrupted is ended in them, and price them once.

        What is wrong with one is only logged: every order that needs it is refused, and says why. The first order then
        finds accounting loaded and its figures at hand.
        """
        for dataset in self._holdings.charged():
            try:
                _ = self._holdings.guard(dataset).spent
            except Exception:  # whatever it is, no agent must end of it before its keeper can ask why
                log.exception("ledger of %s not taken up", dataset)

    def close(self) -> None:
        """Let go of the ledgers and of the key store."""
        self._holdings.close()
        self._close()

    def handle(self, data: bytes) -> bytes:
        """The sealed reply to a sealed order. Whatever goes wrong, what leaves is a code."""
        digest = _NO_ORDER
        try:
            order, digest = open_order(data, self._manifest.coordinator)
            self._store.forget_old(time.time())
            return self._seal(self._answer(order, digest))
        except Refusal as refusal:
            return self._refused(digest, refusal.code, str(refusal))
        except Exception:  # its text may quote a record
            log.exception("order failed")
            return self._refused(digest, Code.INTERNAL, "see above")

    def refuse(self, code: Code) -> bytes:
        """A sealed refusal that answers no order in particular."""
        return self._refused(_NO_ORDER, code, "before the order was read")

    def _answer(self, order: AnyOrder, digest: bytes) -> AnyReply:
        work = self._work(order.job)
        answers: dict[type[Any], Callable[[Any, Work, bytes], AnyReply]] = {
            OfferOrder: self._offer,
            EnrolOrder: self._enrol,
            DealOrder: self._deal,
            KeepOrder: self._keep,
            WorkOrder: self._report,
            UnmaskOrder: self._unmask,
            RecoverOrder: self._recover,
            LedgerOrder: self._ledger,
            AdvertiseOrder: self._advertise,
        }
        return answers.get(type(order), self._pairs.answer)(order, work, digest)

    def _offer(self, order: OfferOrder, work: Work, digest: bytes) -> Accepted:
        """Policy, data, and whether the budget affords the whole run; nothing is charged.

        A run that plainly cannot end would spend what is left for nothing, so it is declined before it begins. Attempts
        that fail later, or a limit that is lowered meanwhile, may still end it: every release is charged by itself.
        """
        for task in ("offer", "train", "evaluate"):
            self._decide(work.job, task, work)
        guard = self._holdings.guard(work.job.dataset)
        for plan, steps in whole_run(work):
            guard.refuse_beyond(plan, steps)
        self._holdings.open(work.job.dataset, work.job.data)
        return Accepted(
            order=digest,
            epsilon_spent=guard.spent.gated,
            epsilon_limit=self._policy.now.privacy.max_epsilon,
            head=self._holdings.ledger(work.job.dataset).head,
        )

    def _enrol(self, order: EnrolOrder, work: Work, digest: bytes) -> Enrolled:
        self._decide(work.job, "train", work)
        refuse_stranger(order.session, work.job)
        keys = enrol(self._store, self._manifest, order.session)
        return Enrolled(order=digest, keys=keys, box=own_box(self._store, self._manifest, order.session))

    def _deal(self, order: DealOrder, work: Work, digest: bytes) -> Dealt:
        self._decide(work.job, "train", work)
        refuse_stranger(order.session, work.job)
        return Dealt(order=digest, parcels=deal(self._store, self._manifest, order.session, order.boxes))

    def _keep(self, order: KeepOrder, work: Work, digest: bytes) -> Kept:
        self._decide(work.job, "train", work)
        refuse_stranger(order.session, work.job)
        return Kept(order=digest, bad=keep(self._store, self._manifest, order.session, order.parcels))

    def _report(self, order: WorkOrder, work: Work, digest: bytes) -> AnyReply:
        self._decide(work.job, order.task, work)
        refuse_stranger(order.session, work.job)
        refuse_unknown_group(order, work, order.number)
        return self._labour.report(order, work, digest)

    def _unmask(self, order: UnmaskOrder, work: Work, digest: bytes) -> Unmasked:
        asked = [self._aggregation(order, work, each.number, each.binding) for each in order.sets]
        refuse_mixed(asked)
        for each in order.sets:
            refuse_thin(each, work)
        totals = [unmask(self._store, about, each.members) for about, each in zip(asked, order.sets, strict=True)]
        return Unmasked(order=digest, totals=tuple(totals))

    def _recover(self, order: RecoverOrder, work: Work, digest: bytes) -> Released:
        aggregation = self._aggregation(order, work, order.number, order.binding)
        return Released(order=digest, release=release(self._store, aggregation, order.answered, order.lost))

    def _aggregation(self, order: UnmaskOrder | RecoverOrder, work: Work, number: int, binding: bytes) -> Aggregation:
        """What an order after the reports is about."""
        refuse_stranger(order.session, work.job)
        refuse_unknown_group(order, work, number)
        return Aggregation(
            manifest=self._manifest,
            session=order.session,
            number=number,
            binding=binding,
            ring=work.codec(order.task).ring,
            groups=work.job.aggregation.groups,
        )

    def _advertise(self, order: AdvertiseOrder, work: Work, digest: bytes) -> AnyReply:
        self._decide(work.job, order.task, work)
        return self._pairs.advertise(order, work, digest)

    def _ledger(self, order: LedgerOrder, work: Work, digest: bytes) -> LedgerReply:
        self._decide(work.job, "ledger", work)
        ledger = self._holdings.ledger(work.job.dataset)
        mark = self._holdings.mark(work.job.dataset, work.job.data)
        self._store.forget_job(work.job.digest())  # asked for when a run is over
        return LedgerReply(order=digest, entries=ledger.public_lines(), head=ledger.head, data=mark)

    def _decide(self, job: Job, task: TaskName, work: Work) -> None:
        decide(self._policy.now, job, task, work.layout.size, work.sum_min)

    def _work(self, job: bytes) -> Work:
        """The job's derived values, computed once."""
        if job not in self._works:
            self._works = {job: _work_of(job, self._manifest)}
        return self._works[job]

    def _seal(self, reply: AnyReply) -> bytes:
        return seal(self._settings.id, reply, self._store.identity)

    def _refused(self, digest: bytes, code: Code, why: str) -> bytes:
        reference = secrets.token_hex(6)
        log.warning("refused [%s] %s: %s", reference, code, why)
        return self._seal(Refused(order=digest, code=code.value, reference=reference))


@lru_cache(maxsize=2)
def _work_of(job: bytes, manifest: Manifest) -> Work:
    """One for all sites of a process."""
    return work_of(job_from_bytes(job), manifest)

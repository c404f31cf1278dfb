"""The data sets of this site: of each its ledger, its guard, and its two parts; opened once and kept warm."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from client.guard import Guard
from client.limits import Limit
from client.marks import end_interrupted
from client.policy_file import PolicyFile
from client.site import DataSettings, SiteSettings
from client.sources.catalogue import read_records
from common.data import Records, Schema, fingerprint, split
from common.errors import Code, Refusal
from common.identity import Signer
from common.privacy.ledger import HeadMemory, Ledger, Owner, open_ledger
from common.versions import versions


@dataclass(frozen=True)
class Holding:
    """Records under one schema. Never printed.

    train, holdout  disjoint for ever: a keyed hash of each record decides
    mark            32 bytes that name these records to whoever holds the site's key, and tell others nothing but
                    whether they changed
    """

    train: Records
    holdout: Records
    mark: bytes

    def __repr__(self) -> str:
        return "Holding"


class Holdings:
    """All data sets of a site. A ledger belongs to a data set's name: whatever its file holds, what was spent stays.

    New rows or corrected ones may describe the people of before, so every version of a data set is charged to the
    same ledger.
    durable  whether ledgers must outlive the machine's fall, and not only the process
    """

    def __init__(
        self, settings: SiteSettings, policy: PolicyFile, signer: Signer, memory: HeadMemory, *, durable: bool = True
    ):
        self._settings, self._policy, self._signer, self._memory = settings, policy, signer, memory
        self._durable = durable
        self._key = _split_key(Path(settings.state))
        self._ledgers: dict[str, Ledger] = {}
        self._held: dict[tuple[str, Schema], Holding] = {}

    def ledger(self, dataset: str) -> Ledger:
        """The ledger of a data set, still the very file that was opened; what an earlier process left is ended first.

        Errors: Refusal POLICY_DATA, LEDGER_TAMPERED, LEDGER_ROLLED_BACK, LEDGER_LOCKED.
        """
        held = self._settings.dataset(dataset)
        if dataset not in self._ledgers:
            owner = Owner(self._settings.id, _veiled(dataset, self._key))
            path = ledger_path(self._settings, held)
            self._ledgers[dataset] = self._opened(path, owner)
            end_interrupted(self._ledgers[dataset])
        self._ledgers[dataset].refuse_moved()
        return self._ledgers[dataset]

    def charged(self) -> list[str]:
        """The data sets that have a ledger already."""
        return [held.dataset for held in self._settings.data if ledger_path(self._settings, held).exists()]

    def guard(self, dataset: str) -> Guard:
        """What charges the data set; reads no record. Errors: as `ledger`."""
        rules = self._policy.now.privacy
        limit = Limit(rules.max_epsilon, rules.stated_delta, rules.reason)
        return Guard(self.ledger(dataset), limit, versions())

    def open(self, dataset: str, schema: Schema) -> Holding:
        """The records of a data set as `schema` reads them.

        Errors: Refusal POLICY_DATA, DATA_INVALID, FILE_MISSING, COHORT_TOO_SMALL.
        """
        held = self._settings.dataset(dataset)
        if (dataset, schema) not in self._held:
            reading = read_records(held.source, schema, Path(self._settings.state))
            train, holdout = split(reading.records, self._key, held.holdout)
            self._held[(dataset, schema)] = Holding(train, holdout, fingerprint(reading.records, self._key))
        found = self._held[(dataset, schema)]
        self._refuse_few(len(found.train))
        return found

    def mark(self, dataset: str, schema: Schema) -> bytes | None:
        """The mark of the records that are open under `schema`; None if none are."""
        held = self._held.get((dataset, schema))
        return held.mark if held else None

    def close(self) -> None:
        """Let go of every ledger."""
        for ledger in self._ledgers.values():
            ledger.close()

    def _opened(self, path: Path, owner: Owner) -> Ledger:
        return open_ledger(path, owner, self._signer, versions(), self._memory, durable=self._durable)

    def _refuse_few(self, count: int) -> None:
        if count < self._policy.now.data.min_records:
            raise Refusal(
                Code.COHORT_TOO_SMALL,
                "Data set not used",
                f"it has fewer training records than the {self._policy.now.data.min_records} of policy.toml",
                "Add records, or lower [data] min_records",
            )


def ledger_path(settings: SiteSettings, held: DataSettings) -> Path:
    """The file of a data set's ledger."""
    return Path(settings.state) / f"ledger-{held.dataset}.sqlite"


def ledger_name(settings: SiteSettings, dataset: str) -> str:
    """The data set's name as ledgers and the key store show it: a keyed hash, hex. Errors: Refusal FILE_MISSING."""
    return _veiled(dataset, _split_key(Path(settings.state)))


def _veiled(dataset: str, key: bytes) -> str:
    return hashlib.blake2b(dataset.encode(), key=key, digest_size=16, person=b"hushfed/name").hexdigest()


def _split_key(state: Path) -> bytes:
    try:
        return (state / "split.key").read_bytes()
    except OSError:
        raise Refusal(
            Code.FILE_MISSING,
            f"{state / 'split.key'} not read",
            "without it records could move between training and evaluation",
            "Restore it from the site's backup",
        ) from None

"""All records of a world in memory, and which of them each site holds: read and split exactly as sites do it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from client.craft import Assignment
from client.sources.catalogue import read_records
from client.sources.source import Source
from common.data import Records, held_out
from common.identity import Signer
from common.orders import Task
from simulations.backstage import Backstage, digest_of
from simulations.datasets import Dataset, dataset, write_rows
from simulations.provision import deal, noise_seed, nominal_records, split_key
from simulations.resampling import Resampled, Rows
from simulations.scenario import Scenario

REMEMBERED = 4096  # sites whose rows are kept between rounds
MOST_ALONE = 64  # sites that a baseline trains alone


class Ground:
    """The records of every site of a scenario. A site is known by its id, from 1 on; it costs memory while it is asked.

    scenario  what all of it follows from
    pool      all records of the data set, in its own order
    dealt     rows of the pool that each site holds, by position
    """

    def __init__(self, scenario: Scenario):
        self.scenario, data = scenario, dataset(scenario.job.dataset)
        self.dealt = deal(scenario, data)
        self.pool = _pool(data, scenario)
        self.rows = lru_cache(REMEMBERED)(self._rows)

    def __len__(self) -> int:
        return len(self.dealt)

    def name(self, site: int) -> str:
        """What the site is called."""
        return self.scenario.world.site_name(site - 1, len(self))

    def size(self, site: int) -> int:
        """Records that the site holds, those held out included."""
        records = self.scenario.world.partition.records
        return records if records is not None else len(self.dealt[site - 1])

    def train(self, site: int) -> Records:
        """What the site trains on."""
        return self.pool.take(self.rows(site)[0])

    def holdout(self, site: int) -> Records:
        """What the site is tested on."""
        return self.pool.take(self.rows(site)[1])

    def tested(self, sites: Sequence[int]) -> Records:
        """What these sites are tested on together, a record as often as it is held."""
        rows = [self.rows(site)[1] for site in sites]
        return self.pool.take(np.concatenate(rows) if rows else np.zeros(0, np.int64))

    def arrays(self, site: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and labels of `train`, without the rest of the records."""
        rows = torch.from_numpy(self.rows(site)[0])
        return self.pool.inputs[rows], self.pool.labels[rows]

    def assignment(self, site: int, task: Task, place: tuple[int, int]) -> Assignment:
        """What the site's arithmetic of one attempt depends on. place: round and attempt."""
        job, replay = self.scenario.job, self.scenario.job.privacy.noise == "replay"
        return Assignment(
            site=site,
            task=task,
            round=place[0],
            attempt=place[1],
            seed=job.seed,
            noise=job.privacy.noise,
            noise_seed=noise_seed(self.scenario, self.name(site)) if replay else None,
            nominal_records=self.nominal(site),
        )

    def nominal(self, site: int) -> int:
        """The site's public, rounded number of training records."""
        return nominal_records(self.size(site), self.scenario.world.holdout)

    def backstage(self, signer: Signer) -> Backstage:
        """All records together, each once; and of many sites some that lie evenly apart, alone."""
        sites = range(1, len(self) + 1, max(1, len(self) // MOST_ALONE))[:MOST_ALONE]
        if isinstance(self.dealt, Resampled):
            train, held = np.flatnonzero(~self._held), np.flatnonzero(self._held)
        else:
            parts = [self.rows(site) for site in range(1, len(self) + 1)]
            train, held = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Backstage(
            signer=signer,
            train=self.pool.take(train),
            held=self.pool.take(held),
            alone={self.name(site): self.train(site) for site in sites},
            held_of=self.tested,
            digest=digest_of(list(self.pool.ids)),
        )

    def _rows(self, site: int) -> tuple[Rows, Rows]:
        """Rows of the pool that the site trains on, and that it holds out."""
        rows = self.dealt[site - 1]
        held = self._held[rows] if isinstance(self.dealt, Resampled) else self._held_at(site, rows)
        return rows[~held], rows[held]

    def _held_at(self, site: int, rows: Rows) -> NDArray[np.bool_]:
        key = split_key(self.scenario, self.name(site))
        return held_out([self.pool.ids[row] for row in rows], key, self.scenario.world.holdout)

    @cached_property
    def _held(self) -> NDArray[np.bool_]:
        return held_out(self.pool.ids, split_key(self.scenario, ""), self.scenario.world.holdout)


def _pool(data: Dataset, scenario: Scenario) -> Records:
    """Every row of the data set through the reader of a site. Errors: Refusal DATA_INVALID."""
    with tempfile.TemporaryDirectory(prefix="hushfed-ground-") as folder:
        path, kind = write_rows(data, np.arange(len(data)), Path(folder) / "pool")
        return read_records(Source(path=path.name, kind=kind), scenario.job.data, path.parent).records

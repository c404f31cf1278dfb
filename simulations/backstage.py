"""What only a world that holds all data knows of a run, whether its sites are folders or numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from client.site import read_site
from client.sources.catalogue import read_records
from common.data import Records, split
from common.identity import Signer
from common.job import Job
from deploy.provision import FederationFolder, SiteFolder
from simulations.baselines import union


@dataclass(frozen=True, repr=False, eq=False)
class Backstage:
    """Everybody's records, and the key that the world's coordinator signs with. Never printed.

    train, held  of all sites together: what they train on, and what they hold out
    alone        training records of single sites by name: of all, or of some of a large population
    held_of      what some sites, by id, hold out together
    digest       hex, of the records as the sites hold them
    """

    signer: Signer
    train: Records
    held: Records
    alone: Mapping[str, Records]
    held_of: Callable[[Sequence[int]], Records]
    digest: str


def backstage_of(federation: FederationFolder, job: Job) -> Backstage:
    """Read every site's records, exactly as its agent reads and splits them. Never possible for a real coordinator."""
    parts = {site.name: _parts(site, job) for site in federation.sites}
    held = {site.id: parts[site.name][1] for site in federation.sites}
    return Backstage(
        signer=Signer.load(federation.coordinator / "identity.key"),
        train=union([train for train, _ in parts.values()]),
        held=union([held for _, held in parts.values()]),
        alone={name: train for name, (train, _) in parts.items()},
        held_of=lambda sites: union([held[site] for site in sites]),
        digest=files_digest(federation),
    )


def files_digest(federation: FederationFolder) -> str:
    """The digest of the files that the sites hold: one a site, a table or arrays."""
    return digest_of([path.read_bytes() for site in federation.sites for path in site.root.glob("data.*")])


def digest_of(files: Sequence[bytes]) -> str:
    """SHA-256 over the digests of all sites' files, in the order of sites, hex."""
    return hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in files)).hexdigest()


def _parts(site: SiteFolder, job: Job) -> tuple[Records, Records]:
    """The training and held-out records of a site."""
    settings = read_site(site.settings)
    held = settings.dataset(job.dataset)
    reading = read_records(held.source, job.data, site.root)
    return split(reading.records, (site.root / "state" / "split.key").read_bytes(), held.holdout)

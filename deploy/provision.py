"""A whole federation in one folder: authority, server certificate, keys, manifest, and every site's files."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from common.errors import Code, Refusal
from common.identity import Signer
from common.secagg.manifest import Manifest, SiteEntry, sealed
from common.secagg.regular import fewest_masked
from common.secagg.rules import Rules
from deploy.authority import LOCAL_NAMES, found_authority, issue_server, make_node_key, make_shared_secret, write_secret

LOTS = 400  # salts drawn before rules that small federations rarely satisfy count as refused
STANDING = 4  # lots that may stand, of which the best are taken


@dataclass(frozen=True, kw_only=True)
class SitePlan:
    """One site to be set up.

    nominal_records  public, rounded size           data       its records, copied into the site's folder
    dataset, holdout  of [[data]] in site.toml       source  its table [data.source] without the path
    split_key        32 secret bytes that fix which records are held out
    noise_seed       only for jobs that replay their noise
    """

    name: str
    org: str
    nominal_records: int
    data: Path
    dataset: str
    holdout: float
    source: Mapping[str, Any]
    policy: Mapping[str, Any]
    split_key: bytes
    noise_seed: int | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", self.name):
            raise Refusal(
                Code.CONFIG_INVALID,
                f"Site name {self.name!r}",
                "its folder is called so: it takes letters, digits, . - and _, a letter or digit first",
                "Rename the site",
            )


@dataclass(frozen=True, kw_only=True)
class SiteFolder:
    """Where one site's files lie."""

    id: int
    name: str
    root: Path

    @property
    def settings(self) -> Path:
        """site.toml."""
        return self.root / "site.toml"

    @property
    def node_key(self) -> Path:
        """The key that admits its link to the server."""
        return self.root / "node.key"


@dataclass(frozen=True, kw_only=True)
class FederationFolder:
    """Where the files of a federation lie: authority/, coordinator/ and sites/NAME/."""

    root: Path
    manifest: Manifest
    sites: tuple[SiteFolder, ...]

    @property
    def coordinator(self) -> Path:
        """Folder of the coordination server: identity, manifest, certificate, state."""
        return self.root / "coordinator"


def provision(root: Path, name: str, plans: Sequence[SitePlan], rules: Rules) -> FederationFolder:
    """Set up the federation `name` with these sites under the new or empty folder `root`.

    Everything secret is 0600 in folders of 0700. For rehearsals and tests, where one keeper is everybody; in a
    real federation each site makes its own keys. Errors: Refusal FILE_EXISTS, E_MANIFEST.
    """
    if root.exists() and any(root.iterdir()):
        raise Refusal(Code.FILE_EXISTS, f"{root} not set up", "it is not empty", "Choose another folder")
    unmaskers = rules.unmaskers_min if rules.masks_each else len(plans)
    rules.check(sites=len(plans), orgs=len({plan.org for plan in plans}), unmaskers=unmaskers)
    authority = found_authority(root / "authority", name)
    issue_server(root / "coordinator", authority, LOCAL_NAMES)
    governance, coordinator = Signer.generate(), Signer.generate()
    governance.save(root / "authority" / "governance.key")
    coordinator.save(root / "coordinator" / "identity.key")
    make_shared_secret(root / "coordinator" / "executor.secret")
    folders = tuple(SiteFolder(id=i + 1, name=p.name, root=root / "sites" / p.name) for i, p in enumerate(plans))
    entries = tuple(_keys(folder, plan) for folder, plan in zip(folders, plans, strict=True))
    manifest = _drawn(name, coordinator.public, entries, unmaskers, rules)
    signed = sealed(manifest, governance)
    for place in (root / "coordinator", *(folder.root for folder in folders)):
        (place / "manifest.json").write_bytes(signed)
        (place / "governance.pub").write_text(governance.public.hex() + "\n")
    for folder, plan in zip(folders, plans, strict=True):
        shutil.copyfile(authority.certificate, folder.root / "ca.crt")
        _settings(folder, plan, governance.public)
    return FederationFolder(root=root, manifest=manifest, sites=folders)


def _drawn(name: str, coordinator: bytes, entries: tuple[SiteEntry, ...], unmaskers: int, rules: Rules) -> Manifest:
    """The manifest, its first `unmaskers` sites unmasking; where lots say who masks for whom, with lots that may stand.

    Of a few such lots those are taken whose least chosen unmasking site sees most: it can spare most reports.
    Errors: Refusal E_MANIFEST, that of the last lots.
    """
    found: list[Manifest] = []
    for last in reversed(range(LOTS if rules.masks_each else 1)):
        try:
            made = Manifest(
                federation=name,
                version=1,
                coordinator=coordinator,
                sites=entries,
                unmaskers=tuple(entry.id for entry in entries[:unmaskers]),
                rules=rules,
                salt=secrets.token_bytes(32) if rules.masks_each else b"",
            )
        except Refusal:
            if not (last or found):
                raise
            continue
        found.append(made)
        if len(found) == STANDING:
            break
    return max(found, key=lambda made: fewest_masked(made.lots) if rules.masks_each else 0)


def _keys(folder: SiteFolder, plan: SitePlan) -> SiteEntry:
    """The keys of a site, made in its folder; their public halves as the manifest names them."""
    node = make_node_key(folder.node_key)
    state = folder.root / "state"
    state.mkdir(mode=0o700)
    signer = Signer.generate()
    signer.save(state / "identity")
    write_secret(state / "split.key", plan.split_key)
    return SiteEntry(
        id=folder.id,
        name=plan.name,
        org=plan.org,
        identity=signer.public,
        node=node.openssh,
        nominal_records=plan.nominal_records,
    )


def _settings(folder: SiteFolder, plan: SitePlan, governance: bytes) -> None:
    data = f"data{''.join(plan.data.suffixes)}"
    shutil.copyfile(plan.data, folder.root / data)
    (folder.root / data).chmod(0o600)
    table: dict[str, Any] = {
        "name": plan.name,
        "id": folder.id,
        "state": "state",
        "policy": "policy.toml",
        "threads": 1,  # all sites of a rehearsal share one host
        "federation": {"manifest": "manifest.json", "governance": governance.hex(), "ca": "ca.crt"},
        "data": [{"dataset": plan.dataset, "holdout": plan.holdout, "source": {**plan.source, "path": data}}],
    }
    if plan.noise_seed is not None:
        table["noise_seed"] = plan.noise_seed
    folder.settings.write_text(tomli_w.dumps(table))
    (folder.root / "policy.toml").write_text(tomli_w.dumps(dict(plan.policy)))

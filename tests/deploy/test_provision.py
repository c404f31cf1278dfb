"""A federation set up in one folder: every secret for its owner only, and every site's files its own."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from client.policy import Policy
from client.site import read_site
from common.config import read
from common.errors import Code, Refusal
from common.identity import Signer
from common.secagg.manifest import read_manifest
from common.secagg.rules import Rules
from deploy.provision import FederationFolder, SitePlan, provision

RULES = Rules(unmaskers_min=2, quorum_min=2, orgs_min=2, sites_max=4, corrupt_max=1, overlap_min=0)
POLICY: dict[str, Any] = {
    "tasks": {"allow": ["offer"]},
    "privacy": {"modes": ["M2"], "max_epsilon": 1.0, "delta": 1e-5},
}


def plans(folder: Path, *names: str) -> list[SitePlan]:
    made = []
    for number, name in enumerate(names):
        data = folder / f"{name}.csv.gz"
        data.write_bytes(f"rows of {name}".encode())
        made.append(
            SitePlan(
                name=name,
                org=f"org-{name}",
                nominal_records=100 * (number + 1),
                data=data,
                dataset="patients",
                holdout=0.25,
                source={"kind": "table", "delimiter": ";"},
                policy=POLICY,
                split_key=bytes([number]) * 32,
                noise_seed=7 if number else None,
            )
        )
    return made


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> FederationFolder:
    folder = tmp_path_factory.mktemp("plans")
    root = tmp_path_factory.mktemp("provision") / "fed"
    return provision(root, "rehearsal", plans(folder, "north", "south", "west"), RULES)


def test_every_site_reads_its_own_files_and_the_one_manifest(federation: FederationFolder) -> None:
    for number, site in enumerate(federation.sites):
        settings = read_site(site.settings)
        assert (settings.name, settings.id) == (site.name, number + 1)
        assert settings.noise_seed == (7 if number else None)
        held = settings.dataset("patients")
        assert (held.holdout, held.source.kind, held.source.delimiter) == (0.25, "table", ";")
        assert Path(held.source.path).read_bytes() == f"rows of {site.name}".encode()
        assert held.source.path.endswith("data.csv.gz")
        assert read(Policy, Path(settings.policy)).privacy.max_epsilon == 1.0
        manifest = read_manifest(Path(settings.federation.manifest), bytes.fromhex(settings.federation.governance))
        assert manifest == federation.manifest
        identity = Signer.load(Path(settings.state) / "identity").public
        assert manifest.site_of(identity).id == site.id
        assert manifest.site(site.id).nominal_records == 100 * (number + 1)
        assert Path(settings.federation.ca).read_bytes().startswith(b"-----BEGIN CERTIFICATE")
        assert (site.root / "state" / "split.key").read_bytes() == bytes([number]) * 32


def test_the_coordinator_has_its_identity_and_no_site_s_secret(federation: FederationFolder) -> None:
    folder = federation.coordinator
    assert Signer.load(folder / "identity.key").public == federation.manifest.coordinator
    governance = bytes.fromhex((folder / "governance.pub").read_text().strip())
    assert read_manifest(folder / "manifest.json", governance) == federation.manifest
    secrets = {
        (site.root / "state" / name).read_bytes() for site in federation.sites for name in ("identity", "split.key")
    }
    held = {path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert not secrets & held
    assert len(secrets) == 6


def test_what_is_secret_is_its_owner_s_alone(federation: FederationFolder) -> None:
    secret = {"identity", "identity.key", "split.key", "node.key", "governance.key", "executor.secret", "data.csv.gz"}
    seen = set()
    for path in federation.root.rglob("*"):
        if path.name in secret or path.suffix == ".key":
            seen.add(path.name)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path.parent
    assert secret <= seen


def test_every_key_is_made_anew(tmp_path: Path) -> None:
    made = [
        provision(tmp_path / name, "rehearsal", plans(tmp_path, "north", "south"), RULES) for name in ("one", "two")
    ]
    keys = {key for each in made for site in each.manifest.sites for key in (site.identity, site.node.encode())}
    keys |= {each.manifest.coordinator for each in made}
    assert len(keys) == 10


def test_a_folder_that_holds_anything_stays_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "fed"
    root.mkdir()
    (root / "mine").write_text("precious")
    with pytest.raises(Refusal) as refused:
        provision(root, "rehearsal", plans(tmp_path, "north", "south"), RULES)
    assert refused.value.code is Code.FILE_EXISTS
    assert [path.name for path in root.iterdir()] == ["mine"]


@pytest.mark.parametrize("names", [("north",), ("north", "south", "east", "west", "top")], ids=["too few", "too many"])
def test_rules_that_these_sites_cannot_keep_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(Refusal) as refused:
        provision(tmp_path / "fed", "rehearsal", plans(tmp_path, *names), RULES)
    assert refused.value.code is Code.E_MANIFEST
    assert not (tmp_path / "fed").exists()


@pytest.mark.parametrize("name", ["../escape", "a/b", "..", ".", "", "/tmp/x", "-x", "a\nb"])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    good, other = plans(tmp_path, "north", "south")
    with pytest.raises(Refusal) as refused:
        SitePlan(**{**vars(other), "name": name})
    assert refused.value.code is Code.CONFIG_INVALID
    assert good.name == "north"

"""A federation's folder on one host: which processes it means, and where they listened last."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization

from common.addresses import checked_address, checked_loopback
from common.config import read_table
from common.errors import Code, Refusal
from common.secagg.manifest import Manifest, read_manifest
from common.status_file import read_status, refusal_in
from deploy.authority import ServerFiles
from deploy.fleet import FleetControl
from deploy.up import FederationLayout, SiteProcesses, free_address


@dataclass(frozen=True)
class Addresses:
    """HOST:PORT for sites, and the loopback HOST:PORT for operators."""

    public: str
    private: str

    @classmethod
    def of(cls, public: str | None, private: str | None) -> Addresses:
        """The addresses that were asked for; free loopback ports for those that were not.

        Errors: Refusal CONFIG_INVALID for what is not HOST:PORT, a private one that is not loopback, or one for both.
        """
        found = cls(
            checked_address(public, "--public") if public is not None else free_address(),
            checked_loopback(private, "--private") if private is not None else free_address(),
        )
        if found.public == found.private:
            raise Refusal(
                Code.CONFIG_INVALID, f"--public and --private {public}", "one port serves one of them", "Give two ports"
            )
        return found


def layout_of(root: Path, addresses: Addresses | None = None) -> FederationLayout:
    """The processes of the federation under `root`: server, executor, and the sites whose folders are there.

    addresses  where to listen; free loopback ports if not given
    Errors: Refusal FILE_MISSING where `root` is no federation.
    """
    coordinator, ca = root / "coordinator", root / "authority" / "ca.crt"
    if not (coordinator / "manifest.json").exists():
        raise Refusal(Code.FILE_MISSING, f"{root} not started", "it holds no federation", "Name its folder")
    addresses = addresses or Addresses.of(None, None)
    return FederationLayout(
        folder=root / "processes",
        server=ServerFiles(certificate=coordinator / "server.crt", key=coordinator / "server.key", ca=ca),
        secret=coordinator / "executor.secret",
        sites=tuple(_site(path) for path in sorted((root / "sites").glob("*/site.toml"))),
        public=addresses.public,
        private=addresses.private,
    )


def control_of(root: Path) -> FleetControl:
    """The private listener of the federation that runs under `root`. Errors: Refusal FEDERATION_UNREACHABLE."""
    try:
        found = json.loads((root / "processes" / "addresses.json").read_text())
    except (OSError, ValueError):
        raise Refusal(
            Code.FEDERATION_UNREACHABLE, f"No server of {root}", "it was not started", f"Run `hushfed fed up {root}`"
        ) from None
    return FleetControl(found["private"], root / "authority" / "ca.crt")


def admit_sites(root: Path, fleet: FleetControl) -> None:
    """Register the node key of every site of the manifest. Errors: Refusal E_MANIFEST, FILE_MISSING."""
    for site in manifest_in(root).sites:
        key = serialization.load_ssh_public_key(site.node.encode())
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        fleet.admit(pem, site.name)


def manifest_in(root: Path) -> Manifest:
    """The manifest in force at the coordinator. Errors: Refusal FILE_MISSING, E_MANIFEST, E_SIG."""
    place = root / "coordinator"
    try:
        governance = bytes.fromhex((place / "governance.pub").read_text().strip())
    except (OSError, ValueError):
        raise Refusal(
            Code.FILE_MISSING, f"{place / 'governance.pub'} not read", "it holds no key", "Name the federation's folder"
        ) from None
    return read_manifest(place / "manifest.json", governance)


def rounds_of(state: Path) -> list[dict[str, Any]]:
    """The rounds that a run has written down so far; a line that is being written is not one yet."""
    try:
        whole, _, _ = (state / "rounds.jsonl").read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]
    except (OSError, ValueError):
        return []


def refusal_of(state: Path, details: str) -> Refusal:
    """Why the coordinator stopped, in its own words."""
    try:
        table = json.loads((state / "refusal.json").read_text())
        return Refusal(Code(table["code"]), table["what"], table["why"], table["do"])
    except (OSError, ValueError, KeyError):
        why = details.strip().rpartition("\n")[2] or "the coordinator died"
        do = "Resume it, look at its log, or give it up with `hushfed server discard`"
        return Refusal(Code.RUN_FAILED, "Run ended without a result", why, do)


def turned_away(state: Path, number: int) -> Refusal | None:
    """Why the run of that number left the folder to another coordinator, if it did; told once."""
    word = state / f"refusal-{number}.json"
    found = refusal_in({"refusal": read_status(word)})
    word.unlink(missing_ok=True)
    return found


def _site(settings: Path) -> SiteProcesses:
    table, folder = read_table(settings), settings.parent
    state = folder / str(table.get("state", "state"))
    return SiteProcesses(
        name=str(table.get("name")), settings=settings, node_key=folder / "node.key", run=state / "run"
    )

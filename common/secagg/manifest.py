"""The manifest: who belongs to a federation and under which rules sums are opened; signed by its governance."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from common.config import canonical, load, plain
from common.errors import Code, Refusal
from common.identity import Signer, verify
from common.secagg.regular import Lots, fewest_masked, smallest_sum
from common.secagg.rules import Rules, refused

_CONTEXT = b"hushfed/manifest/v1\0"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_LIMIT = 64 * 2**20  # bytes of a manifest file


@dataclass(frozen=True, kw_only=True)
class SiteEntry:
    """One site as all others know it.

    id               its number in every message, 1 … 2^63 - 1, never given to another site
    org              the organisation that runs it; sites of one organisation count as one for `Rules.orgs_min`
    identity         Ed25519 public key (32 bytes) that signs what the site says
    node             public key of its Flower node, OpenSSH text
    nominal_records  a public, rounded size to divide by; not a count of its records
    """

    id: int
    name: str
    org: str
    identity: bytes
    node: str
    nominal_records: int

    def __post_init__(self) -> None:
        if not 1 <= self.id < 2**63:
            raise refused(f"Site id {self.id}", "ids are 1 to 2^63 - 1", "Choose another id")
        if not (self.name.strip() and self.org.strip()):
            raise refused(f"Site {self.id}", "its name or organisation is empty", "Name both")
        if not _NAME.fullmatch(self.name):
            why = "its name must be a file name: letters, digits, '-', '_' and '.', beginning with one of the first two"
            raise refused(f"Site {self.id}", why, "Choose another name")
        if len(self.identity) != 32:
            raise refused(f"Site {self.id}", "its identity is no Ed25519 public key", "Use the key of its kit")
        if "\n" in self.node or len(self.node.split(" ")) < 2:
            raise refused(f"Site {self.id}", "its node key is not one line of OpenSSH text", "Use the key of its kit")
        if not 1 <= self.nominal_records <= 2**53:
            raise refused(f"Site {self.id}", "its nominal number of records is not 1 to 2^53", "State a public size")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What governance signed. Every mask depends on its digest.

    version      grows with every change
    coordinator  Ed25519 public key that signs orders
    sites        by ascending id
    unmaskers    ids of the sites that may unmask, ascending; `Rules.corrupt_max` bounds corruption among all of them
    salt         under `Rules.masks_each` 32 bytes that governance draws last of all, from system entropy: nobody who
                 brought a key could try keys until the lots of who masks for whom fell to its liking; else empty
    Errors: Refusal E_MANIFEST if the parts do not fit each other.
    """

    federation: str
    version: int
    coordinator: bytes
    sites: tuple[SiteEntry, ...]
    unmaskers: tuple[int, ...]
    rules: Rules
    salt: bytes = b""

    def __post_init__(self) -> None:
        if not self.federation.strip() or self.version < 1:
            raise refused("Manifest", "it has no federation name or a version below 1", "Name and number it")
        if len(self.coordinator) != 32:
            raise refused("Manifest", "the coordinator's key is no Ed25519 public key", "Use the key of its kit")
        _refuse_repeated(self.sites)
        _refuse_disorder("sites", self.ids)
        _refuse_disorder("unmaskers", self.unmaskers)
        if strangers := set(self.unmaskers) - set(self.ids):
            raise refused(
                f"Unmasking sites {sorted(strangers)}", "they are no sites of the manifest", "Add or drop them"
            )
        self.rules.check(len(self.sites), len({site.org for site in self.sites}), len(self.unmaskers))
        if len(self.salt) != (32 if self.rules.masks_each else 0):
            raise refused("The salt of the manifest", "it is 32 bytes with masks_each, and else none", "Draw it anew")
        if self.rules.masks_each:
            self._check_lots()

    def _check_lots(self) -> None:
        """Who masks for whom leaves no sum that is too small, and no unmasking site with too little to see."""
        rules, least = self.rules, self.smallest_sum(self.rules.quorum_min)
        if 2 * least < rules.quorum_min or least < 2:
            raise refused(
                f"masks_each = {rules.masks_each}",
                f"a lying coordinator might open sums of {least} reports, less than half of {rules.quorum_min}",
                "Raise masks_each or quorum_min, or let fewer unmasking sites be corrupt, absent or lost",
            )
        alone = len(self.unmaskers) == rules.unmaskers_min
        if alone and (seen := fewest_masked(self.lots)) < (needed := rules.reports_each(rules.quorum_min)):
            raise refused(
                "The lots of the manifest",
                f"an unmasking site would see {seen} reports and needs {needed}, even if all sites report",
                "Draw another salt, or raise masks_each",
            )

    @cached_property
    def ids(self) -> tuple[int, ...]:
        """Ids of all sites, ascending."""
        return tuple(site.id for site in self.sites)

    @cached_property
    def most_records(self) -> int:
        """The largest nominal number of records of a site."""
        return max(site.nominal_records for site in self.sites)

    @cached_property
    def all_records(self) -> int:
        """Nominal records of all sites together."""
        return sum(site.nominal_records for site in self.sites)

    def told(self) -> dict[str, Any]:
        """How a run's record names the sites: all that governance signed."""
        return {"manifest": manifest_table(self)}

    @cached_property
    def digest(self) -> bytes:
        """h_F: SHA-256 of the canonical bytes."""
        return hashlib.sha256(canonical(manifest_table(self))).digest()

    @cached_property
    def lots(self) -> Lots:
        """What decides who masks for whom, under `Rules.masks_each`."""
        return Lots(self.digest, self.unmaskers, self.ids, self.rules.masks_each)

    def smallest_sum(self, quorum: int, colluding: int = 0) -> int:
        """Reports that every opened sum is sure to hold, of honest and of colluding sites together.

        quorum     fewest reports that are summed
        colluding  sites that side with the coordinator, if more than `Rules.corrupt_max`
        With masks for all unmasking sites that is the quorum; with `Rules.masks_each` less, as one that lies may
        show each unmasking site another set.
        """
        rules = self.rules
        if not rules.masks_each:
            return quorum
        return smallest_sum(
            self.lots,
            size=rules.unmaskers_min,
            known=rules.corrupt_max + rules.recovered_max,
            each=rules.reports_each(quorum),
            colluding=max(colluding, rules.corrupt_max),
        )

    @cached_property
    def _by_id(self) -> dict[int, SiteEntry]:
        return {site.id: site for site in self.sites}

    def site(self, number: int) -> SiteEntry:
        """The site of this id. Errors: Refusal E_MANIFEST."""
        if number not in self._by_id:
            raise refused(f"Site {number}", "the manifest in force does not name it", "Use the manifest in force")
        return self._by_id[number]

    def site_of(self, identity: bytes) -> SiteEntry:
        """The site of this identity key. Errors: Refusal E_MANIFEST."""
        for site in self.sites:
            if site.identity == identity:
                return site
        raise refused("This identity", "the manifest in force names no site of this key", "Ask governance to join")

    def orgs(self, ids: Collection[int]) -> frozenset[str]:
        """The organisations behind these sites. Errors: Refusal E_MANIFEST for an id it does not name."""
        return frozenset(self.site(number).org for number in ids)


def sealed(manifest: Manifest, governance: Signer) -> bytes:
    """The manifest file: canonical JSON of the manifest and of governance's signature, keys in hex."""
    body = manifest_table(manifest)
    signature = governance.sign(_CONTEXT, canonical(body))
    return canonical({"manifest": body, "signature": signature.hex()}) + b"\n"


@lru_cache(maxsize=4)
def parse_manifest(data: bytes, governance: bytes) -> Manifest:
    """The manifest in the bytes of `sealed`, if the key `governance` signed it.

    Errors: Refusal E_MANIFEST if it is unsigned, changed, in another form than the canonical one, or against
    the rules; E_SIG if another key signed it.
    """
    body, signature = _opened(data)
    verify(governance, signature, _CONTEXT, canonical(body))
    return manifest_from(body)


def manifest_from(body: dict[str, Any]) -> Manifest:
    """The inverse of `manifest_table`: typed, but signed by nobody. Errors: Refusal E_MANIFEST."""
    try:
        manifest = load(Manifest, _with_bytes(body))
    except (Refusal, ValueError, TypeError, KeyError, AttributeError) as error:
        why = error.why if isinstance(error, Refusal) else "its fields are not those of a manifest"
        raise refused("Manifest", why, "Ask governance for a correct one") from None
    if manifest_table(manifest) != body:
        raise refused("Manifest", "it spells a value in a second way", "Ask governance for the canonical file")
    return manifest


def read_manifest(path: Path, governance: bytes) -> Manifest:
    """`parse_manifest` of a file. Errors: also Refusal FILE_MISSING."""
    try:
        data = path.read_bytes()
    except OSError:
        raise Refusal(Code.FILE_MISSING, f"{path} not read", "it cannot be opened", "Check path and mode") from None
    return parse_manifest(data, governance)


def write_manifest(path: Path, manifest: Manifest, governance: Signer) -> None:
    """Sign `manifest` and write its file."""
    path.write_bytes(sealed(manifest, governance))


def _opened(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Body and signature of a file in canonical form."""
    try:
        table = json.loads(data) if len(data) <= _LIMIT else {}
        body, signature = table["manifest"], bytes.fromhex(table["signature"])
        if canonical({"manifest": body, "signature": signature.hex()}) + b"\n" == data and isinstance(body, dict):
            return body, signature
    except (ValueError, KeyError, TypeError, RecursionError, Refusal):
        pass
    raise refused("Manifest", "it is no signed manifest in canonical form", "Ask governance for the signed file")


def manifest_table(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values, bytes in hex; without the settings of modes that the rules do not use."""
    sites = [{**plain(site), "identity": site.identity.hex()} for site in manifest.sites]
    optional = ("shares_min", "masks_each")
    rules = {name: value for name, value in plain(manifest.rules).items() if name not in optional or value}
    table = {**plain(manifest), "coordinator": manifest.coordinator.hex(), "sites": sites, "rules": rules}
    salt = {"salt": manifest.salt.hex()} if manifest.salt else {}
    return {name: value for name, value in table.items() if name != "salt"} | salt


def _with_bytes(body: dict[str, Any]) -> dict[str, Any]:
    """The body with its keys as bytes, before types are checked."""
    sites = [{**site, "identity": bytes.fromhex(site["identity"])} for site in body["sites"]]
    salt = {"salt": bytes.fromhex(body["salt"])} if "salt" in body else {}
    return {**body, "coordinator": bytes.fromhex(body["coordinator"]), "sites": sites} | salt


def _refuse_repeated(sites: tuple[SiteEntry, ...]) -> None:
    for what in ("name", "identity", "node"):
        values = [getattr(site, what) for site in sites]
        if len(set(values)) < len(values):
            raise refused("Manifest", f"two sites share one {what}", f"Give every site its own {what}")


def _refuse_disorder(what: str, ids: tuple[int, ...]) -> None:
    if list(ids) != sorted(set(ids)):
        raise refused(f"The {what} of the manifest", "their ids do not ascend or occur twice", "Sort them by id")

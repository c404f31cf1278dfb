"""site.toml: where one site keeps its data, keys and ledger, and whom it talks to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from client.sources.source import Source
from common.config import finite, read
from common.errors import Code, Refusal
from common.privacy.clipping.names import EngineName

MOST_THREADS = 1024


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The records of one data set at this site.

    holdout  share of records kept for evaluation, fixed for ever by a keyed hash of each record
    source   where they lie and how they are read
    """

    dataset: str
    holdout: float
    source: Source

    def __post_init__(self) -> None:
        finite(self.holdout, "data.holdout", above=0, at_most=0.9)


@dataclass(frozen=True, kw_only=True)
class FederationSettings:
    """Whom this site trusts and reaches. `governance` is the hex key that signs the manifest."""

    manifest: str
    governance: str
    superlink: str = ""
    ca: str = ""


@dataclass(frozen=True, kw_only=True)
class SiteSettings:
    """One site. Relative paths count from the folder of site.toml.

    threads  processor threads of training, at most MOST_THREADS; 0 leaves it to torch. Sites that share a host are
             faster with one each
    engine   how per-record gradients are computed; "auto" takes the fastest that is right for the model. Changes no
             promise: all clip the same sums
    """

    name: str
    id: int
    state: str
    policy: str
    federation: FederationSettings
    data: tuple[DataSettings, ...]
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    threads: int = 0
    engine: EngineName = "auto"
    noise_seed: int | None = None  # only for jobs whose noise is "replay", which void every claim

    def __post_init__(self) -> None:
        finite(self.threads, "threads", at_least=0, at_most=MOST_THREADS)

    def dataset(self, name: str) -> DataSettings:
        """The data set `name`. Errors: Refusal POLICY_DATA."""
        for held in self.data:
            if held.dataset == name:
                return held
        known = ", ".join(held.dataset for held in self.data) or "none"
        raise Refusal(Code.POLICY_DATA, f"Data set {name!r} not used", f"this site holds {known}", "Name one of them")


def read_site(path: Path) -> SiteSettings:
    """site.toml with its paths made absolute. Errors: Refusal FILE_MISSING, CONFIG_INVALID."""
    settings = read(SiteSettings, path)
    folder = path.resolve().parent

    def absolute(name: str) -> str:
        return str(folder / name) if name else ""

    federation = replace(
        settings.federation,
        manifest=absolute(settings.federation.manifest),
        ca=absolute(settings.federation.ca),
    )
    return replace(
        settings,
        state=absolute(settings.state),
        policy=absolute(settings.policy),
        federation=federation,
        data=tuple(
            replace(held, source=replace(held.source, path=absolute(held.source.path))) for held in settings.data
        ),
    )

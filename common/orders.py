"""What every order and every reply has in common, and the words they share."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from common.frames import Frame
from common.secagg.wire import Hash, SiteId

RunId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
JobBytes = Annotated[bytes, msgspec.Meta(max_length=2**20)]
Task = Literal["train", "evaluate"]
Round = Annotated[int, msgspec.Meta(ge=0, le=10**6)]
Clip = Annotated[float, msgspec.Meta(ge=0)]  # in force where it adapts; 0 where the job's own holds
Epsilon = Annotated[float, msgspec.Meta(ge=0)]  # infinite where a release had no noise


class Order(Frame, frozen=True, kw_only=True, tag_field="kind", tag=True):
    """What the coordinator asks of a site. Every order carries its run and the job in force."""

    run: RunId
    job: JobBytes


class Reply(Frame, frozen=True, kw_only=True, tag_field="kind", tag=True):
    """What a site answers. `order` is the digest of the order's body: an answer fits one question only."""

    order: Hash


class Head(Frame, frozen=True, kw_only=True):
    """The last ledger head of a site that the coordinator acknowledged."""

    site: SiteId
    head: Hash

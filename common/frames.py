"""Canonical bytes of typed values: one encoding, read strictly, of bounded size."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from common.errors import Code, Refusal

T = TypeVar("T")

VERSION = 1
_MARK = b"HF"
_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODERS: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


class Frame(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, repr_omit_defaults=True):
    """A typed value of the protocol. It prints as its kind only: fields may carry a site's bytes."""

    def __repr__(self) -> str:
        return type(self).__name__


def pack(value: Any) -> bytes:
    """The one encoding of `value`: mark, version, MessagePack with sorted keys."""
    return _MARK + bytes([VERSION]) + _ENCODER.encode(value)


def unpack(kind: type[T], data: bytes, limit: int) -> T:
    """The value of `kind` that `pack` wrote.

    limit  most bytes that are looked at
    Errors: Refusal MESSAGE_TOO_LARGE, MESSAGE_VERSION, or MESSAGE_INVALID for anything else: a wrong type,
    an unknown field, truncated or trailing bytes, or a second spelling of the same value.
    """
    if len(data) > limit:
        raise Refusal(
            Code.MESSAGE_TOO_LARGE, f"Message of {len(data)} bytes not read", f"the limit is {limit}", "Send less"
        )
    if data[:2] != _MARK or len(data) < 3:
        raise _invalid("it does not begin as one")
    if data[2] != VERSION:
        raise Refusal(
            Code.MESSAGE_VERSION,
            f"Message of version {data[2]} not read",
            f"this side speaks version {VERSION}",
            "Install the same release on both sides",
        )
    try:
        value: T = _decoder(kind).decode(data[3:])
    except (msgspec.MsgspecError, RecursionError, ValueError, OverflowError):
        raise _invalid("its fields are not those of its kind") from None
    if pack(value) != data:
        raise _invalid("it is not in canonical form")
    return value


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    if kind not in _DECODERS:
        _DECODERS[kind] = msgspec.msgpack.Decoder(kind, strict=True)
    return _DECODERS[kind]


def _invalid(why: str) -> Refusal:
    do = "Update the sender or look for a faulty line"
    return Refusal(Code.MESSAGE_INVALID, "Bytes not read as a message", why, do)

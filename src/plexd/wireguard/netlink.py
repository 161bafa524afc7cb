"""The two layers under a WireGuard dump: netlink and generic netlink. Pure bytes, no socket.

A datagram holds messages, a message holds attributes, both padded to four bytes; integers are in
the machine's order (``linux/netlink.h``, ``linux/genetlink.h``)::

    message    u32 length  u16 type  u16 flags  u32 sequence  u32 port
               u8 command  u8 version  u16 0  attributes
    attribute  u16 length  u16 type  value

Lengths include their headers.

A dump is a row of messages of the family's type, ended by ``NLMSG_DONE``.
"""

from __future__ import annotations

import struct
from errno import EAGAIN, EBUSY, EINTR, ENOBUFS
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from plexd.wireguard.errors import DumpError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator

Buffer: TypeAlias = bytes | bytearray | memoryview

NLMSG_NOOP: Final = 1
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x01
NLM_F_DUMP_INTR: Final = 0x10
NLM_F_DUMP: Final = 0x300

GENL_ID_CTRL: Final = 0x10
CTRL_CMD_GETFAMILY: Final = 3
CTRL_ATTR_FAMILY_ID: Final = 1
CTRL_ATTR_FAMILY_NAME: Final = 2

HEADER: Final = struct.Struct("=IHHII")
GENERIC_HEADER: Final = struct.Struct("=BBxx")
ATTRIBUTE_HEADER: Final = struct.Struct("=HH")
# Bound once, with its size and masks written out where it is used: it runs three times a peer.
_unpack_attribute_header: Final = ATTRIBUTE_HEADER.unpack_from
_INT32: Final = struct.Struct("=i")
_UINT16: Final = struct.Struct("=H")

_TRY_AGAIN: Final = frozenset({EAGAIN, EBUSY, EINTR, ENOBUFS})


class Message(NamedTuple):
    """Where one message's attributes lie in its datagram."""

    kind: int
    start: int
    end: int


def messages(datagram: Buffer) -> Iterator[Message]:
    """Yield the family's messages of one datagram, and ``NLMSG_DONE`` in its place.

    Raises `RefusedError` for an error message, `DumpError` for one worth another try, for an
    interrupted dump, and for what is cut short.
    """
    at, size = 0, len(datagram)
    while at < size:
        if size - at < HEADER.size:
            raise DumpError("a netlink message is cut short")
        length, kind, flags, _, _ = HEADER.unpack_from(datagram, at)
        if not HEADER.size <= length <= size - at:
            raise DumpError(f"a netlink message claims {length} of {size - at} bytes")
        if flags & NLM_F_DUMP_INTR:
            raise DumpError("the interface changed during the dump")
        yield from _checked(datagram, kind, at + HEADER.size, at + length)
        at += _aligned(length)


def _checked(datagram: Buffer, kind: int, start: int, end: int) -> Iterator[Message]:
    if kind in {NLMSG_ERROR, NLMSG_DONE}:
        _check_status(datagram, kind, start, end)
    elif end - start < GENERIC_HEADER.size and kind != NLMSG_NOOP:
        raise DumpError("a generic netlink message is cut short")
    if kind not in {NLMSG_NOOP, NLMSG_ERROR}:
        yield Message(kind, min(start + GENERIC_HEADER.size, end), end)


def _check_status(datagram: Buffer, kind: int, start: int, end: int) -> None:
    """Raise the error in an end or an error message; a status of 0 is no error."""
    if end - start < _INT32.size:
        raise DumpError("a netlink status is cut short")
    (status,) = _INT32.unpack_from(datagram, start)
    if status > 0 and kind == NLMSG_ERROR:
        raise DumpError(f"netlink status {status} means nothing")
    if -status in _TRY_AGAIN:
        raise DumpError(str(RefusedError(-status)))
    # The kernel knows no error above 4095 (MAX_ERRNO); os.strerror needs a C int.
    if status < 0:
        raise RefusedError(min(-status, 4095))


def attributes(buffer: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the attributes between two positions: kind, start and end of the value.

    Raises `DumpError` for one that is cut short.
    """
    at = start
    while at < end:
        if end - at < 4:
            raise DumpError("a netlink attribute is cut short")
        length, kind = _unpack_attribute_header(buffer, at)
        if not 4 <= length <= end - at:
            raise DumpError(f"a netlink attribute claims {length} of {end - at} bytes")
        yield kind & 0x3FFF, at + 4, at + length  # NLA_TYPE_MASK: two bits are flags
        at += (length + 3) & ~3


def parse_family(datagram: Buffer) -> int:
    """Return the number of a generic netlink family from the controller's answer."""
    for message in messages(datagram):
        if message.kind != GENL_ID_CTRL:
            continue
        for kind, start, end in attributes(datagram, message.start, message.end):
            if kind == CTRL_ATTR_FAMILY_ID and end - start == _UINT16.size:
                number: int = _UINT16.unpack_from(datagram, start)[0]
                return number
    raise DumpError("the answer to a family's name has no number")


def encode_family_request(name: str) -> bytes:
    """Return the request for the number of the family ``name``, which loads its module."""
    attribute = encode_attribute(CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0")
    return encode_request(GENL_ID_CTRL, NLM_F_REQUEST, CTRL_CMD_GETFAMILY, attribute)


def encode_request(kind: int, flags: int, command: int, payload: bytes) -> bytes:
    """Return one generic netlink message to the kernel."""
    length = HEADER.size + GENERIC_HEADER.size + len(payload)
    return HEADER.pack(length, kind, flags, 1, 0) + GENERIC_HEADER.pack(command, 1) + payload


def encode_attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute with its padding."""
    length = ATTRIBUTE_HEADER.size + len(value)
    return ATTRIBUTE_HEADER.pack(length, kind) + value + bytes(_aligned(length) - length)


def _aligned(length: int) -> int:
    return (length + 3) & ~3

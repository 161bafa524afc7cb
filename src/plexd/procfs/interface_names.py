"""The names of a network interface.

It has one under which ``/proc/net/dev`` lists it, and may have alternative ones of up to 127 bytes
(Linux 5.5 and later), by which ``ip`` and systemd know it as well.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

_RTM_NEWLINK: Final = 16  # linux/rtnetlink.h
_RTM_GETLINK: Final = 18
_NLM_F_REQUEST: Final = 1  # linux/netlink.h
_IFLA_ALT_IFNAME: Final = 53  # linux/if_link.h
_MESSAGE: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_ANSWER_BYTES: Final = 32 * 1024


def primary_name(name: bytes) -> bytes:
    """Return the name under which the interface called ``name`` is listed; nothing if none is.

    The kernel is asked as by ``ip link show NAME`` (rtnetlink(7)). It finds interfaces of this
    process's network namespace, by each of their names. Where it cannot be asked, none is found.
    """
    try:
        index = _index_of(name)
        return socket.if_indextoname(index).encode("utf-8", "surrogateescape") if index else b""
    except OSError:  # no netlink in this sandbox, or the interface has just gone
        return b""


def _index_of(name: bytes) -> int:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        asking.settimeout(0)  # the kernel has answered when send() returns
        asking.send(_request(name))
        answer = asking.recv(_ANSWER_BYTES)
    if len(answer) < _MESSAGE.size + _LINK.size or _MESSAGE.unpack_from(answer)[1] != _RTM_NEWLINK:
        return 0  # an error message: there is no such interface
    index: int = _LINK.unpack_from(answer, _MESSAGE.size)[2]
    return index


def _request(name: bytes) -> bytes:
    value = name + b"\0"
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), _IFLA_ALT_IFNAME) + value
    payload = _LINK.pack(0, 0, 0, 0, 0) + attribute + bytes(-len(attribute) % 4)
    length = _MESSAGE.size + len(payload)
    return _MESSAGE.pack(length, _RTM_GETLINK, _NLM_F_REQUEST, 1, 0) + payload

"""Whether the parts of the machine that the settings name are there. Asks the machine."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from plexd.clock import SystemClock
from plexd.procfs import MountPoint, ProcfsError
from plexd.text import nearest, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from plexd.agent.config.settings import Settings

__all__ = ["warnings_about_machine"]


def warnings_about_machine(settings: Settings) -> Iterator[str]:
    """One sentence for each thing that was named and is not there; defaults are left alone.

    Takes as long as a file system that hangs is waited for, about two seconds. Not to be called
    while an event loop runs.
    """
    if "system.mount_point" in settings.origins:
        yield from _missing_mount_point(settings.system.mount_point)
    for key in ("system.net_iface", "wireguard.interface"):
        if key in settings.origins and settings.value(key):
            yield from _missing_interface(key, settings.value(key))


def _missing_mount_point(path: str) -> Iterator[str]:
    # Asked as the collector asks, because a plain stat() of a dead network mount never returns.
    mount = MountPoint(path, clock=SystemClock())
    try:
        asyncio.run(mount.read_usage())
    except ProcfsError as err:
        yield f"system.mount_point: {path}: {err.reason.removeprefix('statvfs: ')}"


def _missing_interface(key: str, name: str) -> Iterator[str]:
    try:
        names = [known for _, known in socket.if_nameindex()]
    except OSError:  # a sandbox without netlink: nothing is known, so nothing is said
        return
    if name not in names:
        yield f"{key}: there is no interface {quoted(name)}{nearest(name, names)}"

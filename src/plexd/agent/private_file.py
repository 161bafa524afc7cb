"""Files that hold a secret: how they are opened, and who else can read them.

Mode bits alone do not say it. An access list (acl(5)) can open a file to users and groups, and its
mask shows as the group's bits. systemd opens a credential to the unit's user by one
(systemd.exec(5), `LoadCredential=`). Kubernetes gives a secret to
the group of the pod on a mount that nobody there can change. A file of root that is open to the
group of a service is the usual way to hand a secret to it.
"""

from __future__ import annotations

import os
import stat
import struct
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Final, NamedTuple

from plexd.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROOT: Final = 0
_READ: Final = 4
_ALL: Final = 7
_SYSTEMD: Final = "CREDENTIALS_DIRECTORY"

# linux/posix_acl_xattr.h: after the version, each entry has a tag, what it allows, and an id.
_ACCESS_LIST: Final = "system.posix_acl_access"
_VERSION_BYTES: Final = 4
_ENTRY: Final = struct.Struct("<HHI")
_USER, _OWNING_GROUP, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open ``path`` for reading and return its descriptor. Raises `OSError`.

    Never waits, as for the writer of a named pipe: the caller looks at what it has opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def how_to_close(path: Path, descriptor: int) -> str:
    """What closes the file to those who have no business with it; empty if it is closed.

    Root and this process's user may read it. So may a group of this process or root's group, if
    this user could not close the file, or if not even its owner may write to it (0440), which is
    how secrets are delivered; and any one group on a read-only mount. Whatever systemd has put into
    its directory of credentials is closed.
    """
    about = os.fstat(descriptor)
    is_fixed = bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)
    if _is_of_systemd(path) or _is_closed(about, _granted(descriptor, about), is_fixed=is_fixed):
        return ""
    return _hint(printable(path), about.st_uid, is_fixed=is_fixed)


class _Granted(NamedTuple):
    """The users who have access beside the owner, and the groups with what they may do."""

    users: frozenset[int]
    groups: dict[int, int]


def _granted(descriptor: int, about: os.stat_result) -> _Granted:
    """Read the access list, where there is one: the mode then shows no more than its mask."""
    try:
        entries = list(_ENTRY.iter_unpack(os.getxattr(descriptor, _ACCESS_LIST)[_VERSION_BYTES:]))
    except OSError:
        entries = [(_OWNING_GROUP, about.st_mode >> 3 & _ALL, 0)]
    mask = next((may for tag, may, _ in entries if tag == _MASK), _ALL)
    users = frozenset(who for tag, may, who in entries if tag == _USER and may & mask)
    groups = {who: may & mask for tag, may, who in entries if tag == _GROUP and may & mask}
    own = next((may & mask for tag, may, _ in entries if tag == _OWNING_GROUP), 0)
    return _Granted(users, groups | ({about.st_gid: own} if own else {}))


def _is_closed(about: os.stat_result, granted: _Granted, *, is_fixed: bool) -> bool:
    if about.st_mode & stat.S_IRWXO or granted.users - {_ROOT, os.geteuid()}:
        return False
    return len(granted.groups) <= 1 and all(
        may == _READ and (is_fixed or _is_for_us(about, group))
        for group, may in granted.groups.items()
    )


def _is_for_us(about: os.stat_result, group: int) -> bool:
    user = os.geteuid()
    groups = {_ROOT, os.getegid(), *os.getgroups()}
    could_be_closed = user in {_ROOT, about.st_uid} and about.st_mode & stat.S_IWUSR
    return about.st_uid in {_ROOT, user} and group in groups and not could_be_closed


def _is_of_systemd(path: Path) -> bool:
    directory = os.environ.get(_SYSTEMD, "")
    return directory.startswith("/") and _resolved(path).is_relative_to(_resolved(Path(directory)))


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve() raises for a circle of links


def _hint(name: str, owner: int, *, is_fixed: bool) -> str:
    if is_fixed:
        return (
            "its mount is read-only, so give it mode 0400 where it comes from (in Kubernetes "
            "`defaultMode: 0400`, or 0440 with `fsGroup`)"
        )
    user = os.geteuid()
    if user in {_ROOT, owner}:
        return f"run: chmod 0600 {quote(name)}"
    return f"run as root: chown {user} {quote(name)} && chmod 0600 {quote(name)}"

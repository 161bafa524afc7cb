"""The node's identity: the file ``identity.json`` in the data directory.

It holds what the control plane gave the node at its enrolment, including the node's secret key.
So a file that others could read is refused (see `plexd.agent.private_file`), and no message quotes
its content.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

import msgspec

from plexd.agent.errors import IdentityError
from plexd.agent.private_file import how_to_close, opened
from plexd.api import Peer, Secret
from plexd.durable import sync, write_private
from plexd.text import bare, decoded, printable

if TYPE_CHECKING:
    from pathlib import Path

FILE_NAME = "identity.json"
_MAX_BYTES = 64 * 2**20
_NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SECRET_KEY = re.compile(r"[\x20-\x7e]{32}")
_TOKEN = re.compile(r"[\x21-\x7e]*")


class Identity(msgspec.Struct, frozen=True):
    """This node's name, address and keys, and its peers at the enrolment.

    ``node_secret_key`` is 32 printable ASCII characters whose bytes are the key; ``auth_token``
    is the bearer token at the control plane.
    """

    node_id: str
    mesh_ip: str
    node_secret_key: str
    auth_token: str
    peers: tuple[Peer, ...] = ()

    def __repr__(self) -> str:
        return (
            f"Identity(node_id={self.node_id!r}, mesh_ip={self.mesh_ip!r}, "
            f"node_secret_key={Secret(self.node_secret_key)!r}, "
            f"auth_token={Secret(self.auth_token)!r}, peers={self.peers!r})"
        )


class _Kept(msgspec.Struct, frozen=True):
    """An identity as it is in the file."""

    node_id: str
    mesh_ip: str
    node_secret_key: str
    auth_token: str
    peers: tuple[Peer, ...] | None = ()  # null is an empty list


def load_identity(data_dir: Path) -> Identity:
    """The identity kept in ``data_dir``. Raises `IdentityError` saying what to do."""
    return read_identity(data_dir / FILE_NAME)


def read_identity(path: Path) -> Identity:
    """The identity in the file ``path``. Raises `IdentityError` saying what to do."""
    try:
        kept = msgspec.json.decode(decoded(_read(path)), type=_Kept)
    except (msgspec.MsgspecError, ValueError, RecursionError) as err:
        raise IdentityError(f"{printable(path)} is not an identity: {_reason(err)}") from None
    identity = Identity(
        node_id=kept.node_id,
        mesh_ip=kept.mesh_ip,
        node_secret_key=bare(kept.node_secret_key),
        auth_token=bare(kept.auth_token),
        peers=kept.peers or (),
    )
    _check(path, identity)
    return identity


def save_identity(data_dir: Path, identity: Identity) -> None:
    """Replace the identity in ``data_dir`` by ``identity``, readable by its owner only.

    Whenever the machine stops, either the old or the new one is there, whole. Raises
    `IdentityError` when the directory cannot be written to.
    """
    path = data_dir / FILE_NAME
    _check(path, identity)
    content = msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n"
    partial = data_dir / f".{FILE_NAME}.{os.getpid()}"
    try:
        partial.unlink(missing_ok=True)
        write_private(partial, content)
        partial.replace(path)
        sync(data_dir)
    except OSError as err:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise IdentityError(f"cannot write {printable(path)}: {err.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        with opened(path) as descriptor:
            _refuse_unsafe(path, descriptor)
            # The descriptor and not the path: what was checked is what is read.
            with open(descriptor, "rb", closefd=False) as content:
                return content.read(_MAX_BYTES)
    except FileNotFoundError:
        raise IdentityError(
            f"no identity at {printable(path)}: run `plexd register`, or save there, with mode "
            "0600, what `plexd-server node create` printed"
        ) from None
    except OSError as err:
        cure = "; give it to the user plexd runs as" if isinstance(err, PermissionError) else ""
        raise IdentityError(f"cannot read {printable(path)}: {err.strerror}{cure}") from None


def _refuse_unsafe(path: Path, descriptor: int) -> None:
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        raise IdentityError(f"{printable(path)} is not a regular file")
    if hint := how_to_close(path, descriptor):
        raise IdentityError(
            f"{printable(path)} is open to others than its owner (mode {stat.S_IMODE(mode):04o}); "
            f"{hint}"
        )


def _check(path: Path, identity: Identity) -> None:
    for fits, complaint in (
        (_NODE_ID.fullmatch(identity.node_id), "node_id is not 1 to 63 of A-Z a-z 0-9 . _ -"),
        # Empty until the mesh has given the node an address.
        (not identity.mesh_ip or _is_address(identity.mesh_ip), "mesh_ip is not an IP address"),
        (
            _SECRET_KEY.fullmatch(identity.node_secret_key),
            "node_secret_key is not 32 printable ASCII characters",
        ),
        (_TOKEN.fullmatch(identity.auth_token), "auth_token is not printable ASCII"),
    ):
        if not fits:
            raise IdentityError(f"{printable(path)} is not an identity: {complaint}")


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _reason(err: Exception) -> str:
    """What is wrong with the JSON, without quoting the file."""
    if isinstance(err, msgspec.ValidationError):
        return printable(str(err))
    if isinstance(err, msgspec.DecodeError) and "truncated" in str(err):
        return "the file ends too early"
    if isinstance(err, msgspec.MsgspecError | RecursionError):
        return "it is not JSON"
    return str(err)  # of `decoded`

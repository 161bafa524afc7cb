"""The master key, and sealing under it: only this server can read its secrets.

    master.key   64 hexadecimal digits, the 32 bytes of an AES-256 key; mode 0600
    sealed       12 random bytes, then AES-256-GCM's ciphertext with its 16-byte tag

The place of a sealed value (table, node, name, version) is its additional authenticated data, as
JSON: a value that was moved to another row, or back to an older version, does not open.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final

import msgspec

from plexd.durable import sync, write_private
from plexd_server.errors import SealError, StartError

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FILE_NAME: Final = "master.key"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class MasterKey:
    """The key in the file ``path``, read when it is first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def seal(self, text: str, *place: str | int) -> bytes:
        """Return ``text`` in a form that only this key opens, and only at this place."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), _place(place))

    def open(self, sealed: bytes, *place: str | int) -> str:
        """Return the text sealed for this place. Raises `SealError` for anything else."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 -- as below

        nonce, rest = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, rest, _place(place)).decode()
        except (InvalidTag, ValueError):
            shown = " ".join(map(str, place))
            raise SealError(f"the sealed value of {shown} does not open with {self.path}") from None

    def make(self) -> None:
        """Write a new key into the file, unless one is there. Raises `StartError`."""
        partial = self.path.with_name(f".{FILE_NAME}.{os.getpid()}")
        try:
            partial.unlink(missing_ok=True)
            write_private(partial, f"{os.urandom(_KEY_BYTES).hex()}\n".encode())
            with suppress(FileExistsError):  # another process was faster, with a key of its own
                self.path.hardlink_to(partial)
            partial.unlink()
            sync(self.path.parent)
        except OSError as err:
            raise StartError(f"cannot write {self.path}: {err.strerror}") from err

    def copy_to(self, path: Path) -> None:
        """Write the key into a new file. Raises `StartError`."""
        try:
            write_private(path, f"{self._read().hex()}\n".encode())
        except OSError as err:
            raise StartError(f"cannot write {path}: {err.strerror}") from err

    @property
    def exists(self) -> bool:
        """Whether the file exists."""
        return self.path.exists()

    @cached_property
    def _cipher(self) -> AESGCM:
        # Imported when used: ten megabytes that `plexd-server node list` does not need.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415

        return AESGCM(self._read())

    def _read(self) -> bytes:
        try:
            with self.path.open("rb") as opened:
                mode = os.fstat(opened.fileno()).st_mode
                text = opened.read(4 * _KEY_BYTES).strip()
        except OSError as err:
            raise StartError(f"cannot read the master key {self.path}: {err.strerror}") from err
        if mode & _OTHERS:
            raise StartError(
                f"others can read the master key {self.path}; run: chmod 600 {self.path}, and if "
                "somebody may have read it, set the secrets anew"
            )
        try:
            key = bytes.fromhex(text.decode("ascii"))
        except ValueError:
            key = b""
        if len(key) != _KEY_BYTES:
            raise StartError(f"{self.path} is no master key; put the one of a backup in its place")
        return key


def _place(parts: tuple[str | int, ...]) -> bytes:
    return msgspec.json.encode(("plexd-server", *parts))

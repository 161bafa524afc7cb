"""The token for the control plane: where it comes from, and how it is read again."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import msgspec

from plexd.agent.config.keys import variable
from plexd.agent.config.kinds import parse_secret
from plexd.agent.errors import IdentityError, SettingsError
from plexd.agent.identity import read_identity
from plexd.agent.private_file import opened
from plexd.api import Secret
from plexd.text import decoded, printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from plexd.agent.config.settings import Settings
    from plexd.agent.identity import Identity

_KEY = "api.auth_token"
_FILE_KEY = "api.auth_token_file"
_MOST_BYTES = 64 * 1024  # what an HTTP header may have


def with_token(identity: Identity, settings: Settings) -> Identity:
    """``identity`` with the token of ``api.auth_token_file``, if that is set.

    Raises `SettingsError` if the file has no token. It blocks on the disk.
    """
    if settings.auth_token_file is None:
        return identity
    token = _of_token_file(settings, settings.auth_token_file)
    return msgspec.structs.replace(identity, auth_token=token)


def token_reader(settings: Settings, node_id: str, identity_file: Path) -> Callable[[], str] | None:
    """The function that reads the token again: from its file, the configuration or the identity.

    None for a token of the environment, which cannot change while a process runs. The function
    blocks on the disk. It raises `SettingsError` or `IdentityError` if there is no token, and
    `IdentityError` for an identity that has become another node's. The source is chosen at the
    start: a token added to the configuration later needs a restart.
    """
    token_file = settings.auth_token_file
    if token_file is not None:
        return lambda: _of_token_file(settings, token_file)
    if not settings.api.auth_token:
        return lambda: _of_identity(identity_file, node_id)
    path = settings.path
    if path is None or settings.origins.get(_KEY) == variable(_KEY):
        return None
    return lambda: _of_file(path)


def _of_identity(path: Path, node_id: str) -> str:
    identity = read_identity(path)
    if identity.node_id != node_id:
        raise IdentityError(
            f"{printable(path)} is now that of {identity.node_id}; restart to become it"
        )
    return identity.auth_token


def _of_file(path: Path) -> str:
    from plexd.agent.config.file import read_file  # noqa: PLC0415 - brings YAML with it

    given = read_file(path).get(_KEY)
    if given is None:
        raise SettingsError(printable(path), _KEY, "is no longer set; restart to do without")
    return Secret(given.value).reveal()


def _of_token_file(settings: Settings, path: Path) -> str:
    try:
        return _token_in(path)
    except OSError as err:
        reason = err.strerror
    except ValueError as err:
        reason = str(err)
    place = settings.origins.get(_FILE_KEY, "")
    raise SettingsError(place, _FILE_KEY, f"{printable(path)}: {reason}")


def _token_in(path: Path) -> str:
    with opened(path) as descriptor:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("is not a regular file")
        with open(descriptor, "rb", closefd=False) as content:
            data = content.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("is larger than 64KiB, which no token is")
    token = parse_secret(decoded(data)).reveal()
    if not token:
        raise ValueError("is empty")
    return token

"""The token for the control plane, read again while the agent runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plexd.agent.config.file import read_file
from plexd.agent.config.keys import variable
from plexd.agent.errors import IdentityError, SettingsError
from plexd.agent.identity import read_identity
from plexd.api import Secret
from plexd.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from plexd.agent.config.settings import Settings

_KEY = "api.auth_token"


def token_reader(settings: Settings, node_id: str, identity_file: Path) -> Callable[[], str] | None:
    """The function that reads the token again from its source: configuration file or identity.

    None for a token of the environment, which cannot change while a process runs. The function
    blocks on the disk. It raises `SettingsError` or `IdentityError` if there is no token, and
    `IdentityError` for an identity that has become another node's. The source is chosen at the
    start: a token added to the configuration later needs a restart.
    """
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
    given = read_file(path).get(_KEY)
    if given is None:
        raise SettingsError(printable(path), _KEY, "is no longer set; restart to do without")
    return Secret(given.value).reveal()

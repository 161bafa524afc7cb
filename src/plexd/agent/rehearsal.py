"""A rehearsal of the start: what `plexd run` does before it opens anything.

`plexd config check` is this, so that nothing is found valid which a run refuses.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from plexd.agent import app
from plexd.agent.identity import FILE_NAME, Identity, load_identity
from plexd.agent.node_token import with_token
from plexd.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from plexd.agent.config.settings import Settings

_ANYWHERE = "http://localhost"
_NOBODY = Identity(node_id="", mesh_ip="", node_secret_key="", auth_token="")


def rehearse(settings: Settings) -> Iterator[str]:
    """Read the identity and the token, and build every part of the agent without starting any.

    Yields a remark for each file that this user must not read, and that is therefore not checked; a
    node may have no identity yet. Raises what a run would raise: `SettingsError`, `IdentityError`.
    """
    identity = _NOBODY
    if not settings.api.base_url:  # a warning says so
        settings = replace(settings, api=replace(settings.api, base_url=_ANYWHERE))
    directory, token_file = settings.data_dir, settings.auth_token_file
    if directory is not None and not _is_missing(directory / FILE_NAME):
        if remark := _unreadable(directory / FILE_NAME):
            yield remark
        else:
            identity = load_identity(directory)
    if token_file is not None and (remark := _unreadable(token_file)):
        yield remark
    else:
        identity = with_token(identity, settings)
    app.build_parts(settings, identity)


def _is_missing(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # it may be there, where this user cannot look
        return False
    return False


def _unreadable(path: Path) -> str:
    """Return a remark if ``path`` is only for others to read; what else is wrong, reading shows."""
    try:
        path.stat()
        is_refused = not os.access(path, os.R_OK, effective_ids=True)
    except OSError as err:
        is_refused = isinstance(err, PermissionError)
    remark = f"{printable(path)}: not checked, because this user cannot read it"
    return remark if is_refused else ""

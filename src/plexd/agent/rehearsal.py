"""A rehearsal of the start: what `plexd run` does before it opens anything.

`plexd config check` is this, so that nothing is found valid which a run refuses.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from plexd.agent import app
from plexd.agent.data_dir import check_data_dir, why_not_writable
from plexd.agent.errors import NotReadyError
from plexd.agent.identity import FILE_NAME, Identity, read_identity
from plexd.agent.node_token import with_token
from plexd.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from plexd.agent.config.settings import Settings

_ANYWHERE = "http://localhost"
_NOBODY = Identity(node_id="", mesh_ip="", node_secret_key="", auth_token="")


def rehearse(settings: Settings, identity_file: Path | None = None) -> Iterator[str]:
    """Read the identity and the token, and build every part of the agent without starting any.

    ``identity_file`` is the one that the run will be given, if not that of the data directory. A
    node may have no identity yet, and no data directory. Yields a remark for what the run lacks,
    and for each file that this user must not read, and that is therefore not checked. Raises what
    a run would raise: `SettingsError`, `NotReadyError`.
    """
    if not settings.api.base_url:  # a warning says so
        settings = replace(settings, api=replace(settings.api, base_url=_ANYWHERE))
    path = identity_file or _in_data_dir(settings)
    if path is None and settings.data_dir is None:
        yield "data_dir: is empty; `plexd run` needs it, or --identity FILE"
    if identity_file is None and settings.data_dir is not None:
        yield from _unwritable(settings.data_dir)
    identity, token_file = _NOBODY, settings.auth_token_file
    if path is not None and (remark := _unreadable(path)):
        yield remark
    elif path is not None:
        identity = read_identity(path)
    if token_file is not None and (remark := _unreadable(token_file)):
        yield remark
    else:
        identity = with_token(identity, settings)
    app.build_parts(settings, identity)


def _unwritable(directory: Path) -> Iterator[str]:
    """Yield a remark if this user cannot write there; the run's user may be another one."""
    if _is_missing(directory):
        return
    try:
        check_data_dir(directory)
    except NotReadyError:
        if not _unreadable(directory):
            raise
        return  # the identity in it cannot be read either, which is said
    if reason := why_not_writable(directory):
        yield reason


def _in_data_dir(settings: Settings) -> Path | None:
    """Return where the data directory has an identity, or may have; None before the enrolment."""
    if settings.data_dir is None or _is_missing(settings.data_dir / FILE_NAME):
        return None
    return settings.data_dir / FILE_NAME


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

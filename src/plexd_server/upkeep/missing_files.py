"""Files of the data directory that are missing beside others: a start goes on, and says so."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from plexd_server.registry import has_registry
from plexd_server.store.embedded import FILE_NAME, JOURNAL_NAME

if TYPE_CHECKING:
    from pathlib import Path

    from plexd.clock import Clock
    from plexd_server.registry import Registry

_LOG = logging.getLogger(__name__)
_POINTS: Final = (
    "the points before this start are gone, but for those in the journal; stop the server and put "
    "this file of a backup in its place, or go on without them"
)
_REGISTRY: Final = (
    "no node is known any more: stop the server and put registry.db and master.key of a backup in "
    "their place, or register every node again"
)
_JOURNAL: Final = (
    "what was accepted after that may be gone; it is, if this is a backup. Otherwise stop the "
    "server and put the directory back"
)


class FoundFiles(NamedTuple):
    """Which files there are, before anything is made.

    ``changed`` is when the file of the points was written to last.
    """

    registry: bool
    points: bool
    journal: bool
    changed: datetime | None = None

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        """Return what is in a directory, which may not exist."""
        try:
            seconds = os.stat(data_dir / FILE_NAME).st_mtime  # noqa: PTH116 -- as below
        except OSError:
            changed = None
        else:
            changed = datetime.fromtimestamp(seconds, UTC)
        journal = os.path.isdir(data_dir / JOURNAL_NAME)  # noqa: PTH112 -- never raises
        return cls(has_registry(data_dir), changed is not None, journal, changed)


def report_missing(found: FoundFiles, registry: Registry, clock: Clock) -> None:
    """Log what was missing beside the rest, once the server has made it again."""
    if not found.points:
        began = registry.points_since
        if began is not None or found.journal:
            _warn(FILE_NAME, began, _POINTS)
        registry.points_since = clock.now()
    if not found.registry and (found.points or found.journal):
        _warn("registry.db", None, _REGISTRY)
    if found.points and not found.journal:
        _warn(JOURNAL_NAME, found.changed, _JOURNAL)


def _warn(file: str, since: datetime | None, hint: str) -> None:
    fields = {} if since is None else {"since": f"{since:%Y-%m-%dT%H:%M:%SZ}"}
    _LOG.warning("data missing", extra={"file": file, **fields, "hint": hint})

"""Points and rollups that are older than their retention are deleted, every hour."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from plexd.background import in_background
from plexd_server.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import timedelta

    from plexd.clock import Clock
    from plexd_server.store import Store

_LOG = logging.getLogger(__name__)
_EVERY_SECONDS: Final = 3600.0


@asynccontextmanager
async def retaining(
    store: Store, keep: timedelta, keep_rollups: timedelta, clock: Clock
) -> AsyncIterator[None]:
    """While the body runs, delete what was measured longer than ``keep`` ago.

    The rollups of it are deleted after ``keep_rollups``.
    """
    async with in_background(_expire_all(store, keep, keep_rollups, clock)):
        yield


async def _expire_all(store: Store, keep: timedelta, keep_rollups: timedelta, clock: Clock) -> None:
    while True:
        try:
            expired = await store.expire(clock.now(), keep, keep_rollups)
        except StoreError as err:
            _LOG.warning("points not expired", extra={"error": str(err)})
        else:
            if expired:
                _LOG.info("points expired", extra={"points": expired})
        await clock.sleep(_EVERY_SECONDS)

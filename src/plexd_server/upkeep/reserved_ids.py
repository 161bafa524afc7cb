"""Ids that have points are kept from strangers, also those that the registry does not know.

The registry keeps the ids of the nodes it removes. It may be younger than the points, or an older
copy of itself: what has points without a row is found here, once after each start.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from plexd.background import in_background
from plexd_server.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from plexd.clock import Clock
    from plexd_server.registry import Registry
    from plexd_server.store import Store

_LOG = logging.getLogger(__name__)
_AGAIN_SECONDS: Final = 60.0


@asynccontextmanager
async def reserving_ids(store: Store, registry: Registry, clock: Clock) -> AsyncIterator[None]:
    """While the body runs, reserve the ids of nodes with points; the store may take its time."""
    async with in_background(_reserve(store, registry, clock)):
        yield


async def _reserve(store: Store, registry: Registry, clock: Clock) -> None:
    while True:
        try:
            known = [node.node_id for node in await store.fleet()]
            await asyncio.to_thread(registry.reserve, known)
        except StoreError as err:
            _LOG.warning("ids not reserved", extra={"error": str(err)})
            await clock.sleep(_AGAIN_SECONDS)
        else:
            return

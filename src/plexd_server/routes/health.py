"""``GET /livez``, ``/readyz``, ``/healthz``: whether the server answers, and the store works."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Final

import msgspec
from litestar import get

from plexd_server.routes.openapi import NO_STORE, described

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

    from plexd.clock import Clock
    from plexd_server.store import Store

_FRESH_SECONDS: Final = 1.0


class HealthAnswer(msgspec.Struct, frozen=True):
    """The answer of a server that works."""

    status: str


def health_routes(store: Store, clock: Clock) -> list[HTTPRouteHandler]:
    """Make the routes that monitoring calls, named as Kubernetes names them."""
    health = Health(store, clock)

    @get("/livez", **described("server", "Whether the server answers"), response_headers=NO_STORE)
    async def livez() -> HealthAnswer:
        return HealthAnswer("ok")

    @get("/readyz", **described("server", "Whether reports are taken"), response_headers=NO_STORE)
    async def readyz() -> HealthAnswer:
        await health.check()
        return HealthAnswer("ok")

    @get("/healthz", **described("server", "Whether the server is well"), response_headers=NO_STORE)
    async def healthz() -> HealthAnswer:
        await health.check()
        return HealthAnswer("ok")

    return [livez, readyz, healthz]


class Health:
    """Checks a working store at most once a second, as anybody may ask."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._lock = asyncio.Lock()
        self._fresh_until = -math.inf

    async def check(self) -> None:
        """Raise `StoreError` if the store fails, at most a second after that began."""
        async with self._lock:
            if self._clock.monotonic() >= self._fresh_until:
                await self._store.check()
                self._fresh_until = self._clock.monotonic() + _FRESH_SECONDS

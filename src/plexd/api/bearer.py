"""The token of every request, and how it is replaced while the program runs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from plexd.api.secret import Secret, check_bearer
from plexd.background import cancel

if TYPE_CHECKING:
    from collections.abc import Callable

# A file is read in microseconds; after this long its disk hangs, and the old token is used.
_PATIENCE_SECONDS = 5.0


class Bearer:
    """A bearer token, and the place where a newer one can be found.

    ``read`` may block, so it runs in a thread of its own; concurrent `renewed` calls share one
    read. A failure to read is logged once until a read succeeds, and the token in use stays.
    Raises `ValueError` for a token that no header can carry.
    """

    def __init__(
        self, token: Secret, read: Callable[[], str] | None, logger: logging.Logger | None = None
    ) -> None:
        check_bearer("auth_token", token)
        self.token = token
        self._read = read
        self._logger = logger or logging.getLogger("plexd.api")
        self._reading: asyncio.Task[None] | None = None
        self._is_failing = False

    async def renewed(self, refused: Secret) -> Secret:
        """Return the token to try instead of ``refused``, or ``refused`` if there is no other."""
        if self._read is None or self.token != refused:
            return self.token
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._reread(self._read), name="read token")
        await asyncio.wait([self._reading], timeout=_PATIENCE_SECONDS)
        return self.token

    async def _reread(self, read: Callable[[], str]) -> None:
        try:
            found = _usable(await asyncio.to_thread(read))
        except Exception as err:  # noqa: BLE001  # whatever it is, the token in use stays
            self._log_failure(str(err) or type(err).__name__)
            return
        self._is_failing = False
        if found != self.token:
            self.token = found
            self._logger.info("credential read anew", extra={"component": "api"})

    def _log_failure(self, reason: str) -> None:
        if not self._is_failing:
            extra = {"component": "api", "error": reason}
            self._logger.warning("credential not read anew", extra=extra)
        self._is_failing = True

    async def aclose(self) -> None:
        """Stop waiting for a read; idempotent."""
        if self._reading is not None:
            await cancel(self._reading)


def _usable(text: str) -> Secret:
    found = Secret(text)
    if not found:
        raise ValueError("it is empty")
    check_bearer("it", found)
    return found

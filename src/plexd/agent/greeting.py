"""The greeting at the start: whether anything answers where the control plane should be.

The first report may be a minute away, and an operator who has just started an agent looks now.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from plexd.api import parse_proxy

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from plexd.api import Config

# The delay between two addresses that RFC 8305, section 5 recommends; the client's is the same.
_NEXT_ADDRESS_SECONDS: Final = 0.25
_NUMBER: Final = re.compile(r"\[Errno (\d+)\]")


async def greet(config: Config, logger: logging.Logger, is_accepted: Callable[[], bool]) -> None:
    """Connect to the control plane, or to the proxy on the way, and warn if that fails.

    All addresses of the name are tried, as the client does. If ``is_accepted`` says by then that a
    report was accepted, there is no warning. ``config`` was checked.
    """
    proxy = parse_proxy(config.proxy)
    url = proxy.url if proxy is not None else config.base_url
    try:
        async with asyncio.timeout(config.connect_timeout.total_seconds()):
            await _connect(url)
    except (OSError, UnicodeError) as err:  # a TimeoutError is an OSError; UnicodeError: a bad name
        if is_accepted():
            return
        extra = {
            "component": "agent",
            "control_plane": config.base_url,
            "error": _why(err) if proxy is None else f"the proxy {url}: {_why(err)}",
            "hint": "points are kept and sent once it is; if the address is wrong, correct "
            "api.base_url (or api.proxy) and restart",
        }
        logger.warning("control plane not reachable", extra=extra)


async def _connect(url: str) -> None:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    _, writer = await asyncio.open_connection(
        parts.hostname, port, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS
    )
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def _why(err: OSError | UnicodeError) -> str:
    if isinstance(err, UnicodeError):
        return f"no such name can be looked up: {err}"
    if isinstance(err, socket.gaierror):  # its number is not the system's
        return err.strerror or str(err)
    # asyncio has a text of its own beside each number, and joins those of several addresses.
    numbers = dict.fromkeys(_NUMBER.findall(str(err)))
    return ", ".join(os.strerror(int(number)) for number in numbers) or "no answer in time"

"""The demo's ``plexd-server`` and its simulated mesh: child processes that end with the demo."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import signal
import sys
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from plexd.agent.errors import NotReadyError

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator
    from pathlib import Path

SIMULATED_NODES = 12

_PR_SET_PDEATHSIG = 1
_READ_EVERY_SECONDS = 10
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0


def require_server() -> None:
    """Raise `NotReadyError` if the extra ``plexd[server]`` is not installed."""
    wanted = ("plexd_server", "uvicorn", "litestar", "duckdb", "sqlalchemy")
    if any(find_spec(name) is None for name in wanted):
        raise NotReadyError("the demo needs the server: pip install 'plexd[server]'")


class DemoServer:
    """One ``plexd-server`` with its data in ``directory``; its addresses are known in `serving`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: Process | None = None
        self.address = ""
        self.dashboard = ""

    async def create_node(self, node_id: str, output: Path) -> None:
        """Register ``node_id`` and write its identity file."""
        process = await self._start(
            *("node", "create", node_id, "--output", str(output)),
            errors=asyncio.subprocess.PIPE,  # its remarks are for operators
        )
        _, said = await process.communicate()
        if process.returncode != 0:
            reason = said.decode("utf-8", "replace").strip()
            raise NotReadyError(f"the demo could not register its node: {reason}")

    @asynccontextmanager
    async def serving(self, listen: str) -> AsyncIterator[None]:
        """Serve on ``listen`` while the body runs."""
        process = await self._start("serve", "--listen", listen)
        self._process = process
        try:
            await self._read_addresses(process)
            yield
        finally:
            await _end(process)

    @asynccontextmanager
    async def simulating(self) -> AsyncIterator[None]:
        """Report for a small mesh beside the real node, an hour of its past first."""
        peers = SIMULATED_NODES - 1
        process = await self._start(
            *("simulate", "--server", self.address),
            *("--nodes", str(SIMULATED_NODES), "--peers", str(peers), "--past", "1h"),
            *("--rate", str(SIMULATED_NODES * (2 + 2 * peers) / _READ_EVERY_SECONDS)),
            output=asyncio.subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            await _end(process)

    async def _start(
        self, *arguments: str, output: int = asyncio.subprocess.PIPE, errors: int | None = None
    ) -> Process:
        _libc()  # loaded here: a child must not load anything between fork and exec
        # A session of its own: a Ctrl-C for the demo must not end the server before the agent has
        # flushed to it.
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "plexd_server", *arguments, "--data-dir", str(self._directory)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    async def _read_addresses(self, process: Process) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                self.address = await _announced(process, "listening on ")
                self.dashboard = await _announced(process, "dashboard ")
        except TimeoutError:
            raise NotReadyError(
                f"the demo's server did not start within {_START_SECONDS:g} s"
            ) from None

    async def wait_for_death(self) -> None:
        """Return when the server has ended."""
        assert self._process is not None
        await self._process.wait()


def _end_with_parent() -> None:
    """In the child: ask for SIGTERM when the demo dies, even of SIGKILL (prctl(2))."""
    _libc().prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


async def _announced(process: Process, prefix: str) -> str:
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    if not line.startswith(prefix):
        raise NotReadyError("the demo's server did not start; its own words are above")
    return line.removeprefix(prefix).strip()


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()

"""``plexd demo``: a control plane, an agent of this machine, and a simulated mesh beside it.

The control plane is the ``plexd-server`` program in a process of its own, the agent is
`plexd.agent.app.run`, and the two talk HTTP with a token made for the demo. One machine is no mesh,
so ``plexd-server simulate`` reports for twelve more through the same HTTP interface; their names
begin with ``sim-`` and every page says that they are simulated. All of them keep their data in a
temporary directory, which is deleted at the end.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec

from plexd import api, metrics
from plexd.agent import app, one_cycle
from plexd.agent.config.settings import Settings, WireGuardSettings
from plexd.agent.errors import NotReadyError
from plexd.agent.identity import Identity, load_identity
from plexd.agent.signals import until_stopped
from plexd.api import HTTPTransport, Trust
from plexd.background import cancel
from plexd.console import complain, put
from plexd.logs import setup_logging

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Iterable

# The shortest intervals the specification allows: somebody waits for the first numbers.
_METRICS = metrics.Config(
    collect_interval=timedelta(seconds=5), report_interval=timedelta(seconds=10)
)
_TIMEOUT = timedelta(seconds=10)
_CAP = 16 * 1024 * 1024
_SIMULATED_NODES = 12
_PR_SET_PDEATHSIG = 1
_READ_EVERY_SECONDS = 10
_START_SECONDS = 60.0
_STOP_SECONDS = 15.0
_BANNER = """\
plexd demo: this machine's metrics, through a real agent and a real server

  dashboard  {dashboard}
  node       {node_id}, this machine
  mesh       {simulated} simulated nodes beside it, some with something wrong

First numbers within {seconds:.0f} s. {end}
"""


def run(*, for_seconds: float | None, listen: str) -> int:
    """Run the demo for so long, or until SIGTERM or Ctrl-C if it is None; return the exit status.

    With a limit, the status is 0 only if points of every group that can be collected here were
    stored by the control plane and read back. Raises `NotReadyError` if it cannot be started.
    """
    _require_server()
    setup_logging("warning", "logfmt")
    demo = _Demo(for_seconds)
    with TemporaryDirectory(prefix="plexd-demo-") as directory:
        asyncio.run(until_stopped(demo.run(Path(directory), listen)))
    return 0 if for_seconds is None or not demo.missing else 1


class _Demo:
    def __init__(self, for_seconds: float | None) -> None:
        self._for_seconds = for_seconds
        self.missing: set[str] = set()

    async def run(self, directory: Path, listen: str) -> None:
        server = _DemoServer(directory / "server")
        await server.create_node(_node_id(), directory / "identity.json")
        identity = load_identity(directory)
        async with server.serving(listen):
            settings = await _settings(server.address, directory)
            put(_banner(server, identity, self._for_seconds))
            async with server.simulating():
                await _report(settings, identity, server, self._for_seconds)
            if self._for_seconds is not None:
                await self._verify(settings, identity)

    async def _verify(self, settings: Settings, identity: Identity) -> None:
        expected = {point.group for point in (await one_cycle.collect_once(settings)).points}
        stored = await _stored_groups(settings, identity)
        self.missing = expected - stored
        put(f"stored and read back: {_listed(stored)}\n")
        if self.missing:
            complain("plexd", f"collected, but never stored: {_listed(self.missing)}")


async def _settings(address: str, directory: Path) -> Settings:
    """The defaults, without an interface if there are no tunnels to measure."""
    settings = Settings(data_dir=directory, api=api.Config(base_url=address), metrics=_METRICS)
    if await app.has_tunnels(settings):
        return settings
    return replace(settings, wireguard=WireGuardSettings(interface=""))


async def _report(
    settings: Settings, identity: Identity, server: _DemoServer, seconds: float | None
) -> None:
    """Run the agent until the time is over or it is cancelled; both flush what it still holds."""
    agent = asyncio.create_task(app.run(settings, identity))
    died = asyncio.create_task(server.wait_for_death())
    try:
        await asyncio.wait([agent, died], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if died.done():
            raise NotReadyError("the demo's server ended by itself; its own words are above")
    finally:
        await cancel(agent, died)
        if not agent.cancelled():
            await agent


async def _stored_groups(settings: Settings, identity: Identity) -> set[str]:
    """The groups of which the control plane has points, read with the node's own token."""
    url = f"{settings.api.base_url}/v1/nodes/{identity.node_id}/latest"
    headers = {"Authorization": f"Bearer {identity.auth_token}"}
    async with HTTPTransport(
        user_agent="plexd-demo", trust=Trust(), connect_timeout=_TIMEOUT, request_timeout=_TIMEOUT
    ) as transport:
        answer = await transport.request("GET", url, headers=headers, cap=_CAP)
    if answer.status != 200:
        raise NotReadyError(f"the demo's server answered HTTP {answer.status} for {url}")
    return {point["group"] for point in msgspec.json.decode(answer.body)["points"]}


def _node_id() -> str:
    """This machine's name, made a valid node id."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")
    return name[:63] or "this-machine"


def _banner(server: _DemoServer, identity: Identity, seconds: float | None) -> str:
    end = "Ctrl-C ends it." if seconds is None else f"It ends by itself after {seconds:g} s."
    return _BANNER.format(
        dashboard=server.dashboard,
        node_id=identity.node_id,
        simulated=_SIMULATED_NODES,
        seconds=_METRICS.report_interval.total_seconds(),
        end=end,
    )


def _listed(groups: Iterable[str]) -> str:
    return ", ".join(sorted(groups)) or "nothing"


def _require_server() -> None:
    """Raise `NotReadyError` if the extra ``plexd[server]`` is not installed."""
    wanted = ("plexd_server", "uvicorn", "litestar", "duckdb", "sqlalchemy")
    if any(find_spec(name) is None for name in wanted):
        raise NotReadyError("the demo needs the server: pip install 'plexd[server]'")


class _DemoServer:
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
        peers = _SIMULATED_NODES - 1
        process = await self._start(
            *("simulate", "--server", self.address),
            *("--nodes", str(_SIMULATED_NODES), "--peers", str(peers), "--past", "1h"),
            *("--rate", str(_SIMULATED_NODES * (2 + 2 * peers) / _READ_EVERY_SECONDS)),
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

"""``plexd demo``: a control plane, an agent of this machine, and a simulated mesh beside it.

The control plane is the ``plexd-server`` program in a process of its own, the agent is
`plexd.agent.app.run`, and the two talk HTTP with a token made for the demo. One machine is no mesh,
so ``plexd-server simulate`` reports for twelve more through the same HTTP interface; their names
begin with ``sim-`` and every page says that they are simulated. All of them keep their data in a
temporary directory, which is deleted at the end.
"""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from plexd import api, metrics
from plexd.agent import app, one_cycle
from plexd.agent.cli.demo_server import SIMULATED_NODES, DemoServer, require_server
from plexd.agent.config.settings import Settings, WireGuardSettings
from plexd.agent.errors import NotReadyError
from plexd.agent.identity import Identity, load_identity
from plexd.agent.signals import until_stopped
from plexd.api import HTTPTransport, Trust
from plexd.background import cancel
from plexd.console import complain, put
from plexd.logs import setup_logging

if TYPE_CHECKING:
    from collections.abc import Iterable

# The shortest intervals the specification allows: somebody waits for the first numbers.
_METRICS = metrics.Config(
    collect_interval=timedelta(seconds=5), report_interval=timedelta(seconds=10)
)
_TIMEOUT = timedelta(seconds=10)
_CAP = 16 * 1024 * 1024
_BANNER = """\
plexd demo: this machine's metrics, through a real agent and a real server

  dashboard  {dashboard}
  node       {node_id}, this machine
  mesh       {simulated} simulated nodes beside it, some with something wrong

First numbers within {seconds:.0f} s. {end}
"""


class _Latest(Struct):
    points: list[_Stored]


class _Stored(Struct):
    group: str


def run(*, for_seconds: float | None, listen: str) -> int:
    """Run the demo for so long, or until SIGTERM or Ctrl-C if it is None; return the exit status.

    With a limit, the status is 0 only if points of every group that can be collected here were
    stored by the control plane and read back. Raises `NotReadyError` if it cannot be started.
    """
    require_server()
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
        server = DemoServer(directory / "server")
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
    settings: Settings, identity: Identity, server: DemoServer, seconds: float | None
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
    latest = msgspec.json.decode(answer.body, type=_Latest)
    return {point.group for point in latest.points}


def _node_id() -> str:
    """This machine's name, made a valid node id."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")
    return name[:63] or "this-machine"


def _banner(server: DemoServer, identity: Identity, seconds: float | None) -> str:
    end = "Ctrl-C ends it." if seconds is None else f"It ends by itself after {seconds:g} s."
    return _BANNER.format(
        dashboard=server.dashboard,
        node_id=identity.node_id,
        simulated=SIMULATED_NODES,
        seconds=_METRICS.report_interval.total_seconds(),
        end=end,
    )


def _listed(groups: Iterable[str]) -> str:
    return ", ".join(sorted(groups)) or "nothing"

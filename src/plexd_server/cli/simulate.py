"""``plexd-server simulate``."""

from __future__ import annotations

import asyncio
import re
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from plexd.background import cancel
from plexd.clock import SystemClock
from plexd.console import put
from plexd_server.cli.options import parse_duration
from plexd_server.simulate import (
    Plan,
    Sent,
    SimulatedIdentity,
    Simulation,
    Uplink,
    World,
    enrol,
    register_here,
)

if TYPE_CHECKING:
    import argparse


_DEFAULT_SECONDS: Final = 15.0
_MOST_NODES: Final = 60_000


def run(options: argparse.Namespace) -> None:
    """Simulate until stopped. Raises `ServerError`, and `ValueError` for wrong options."""
    world = World(options.nodes, options.peers)
    plan = _plan(options, world)
    seconds = None
    if options.run_for is not None:
        seconds = parse_duration("--for", options.run_for).total_seconds()
    token = None if options.token_file is None else _token(options)
    with suppress(asyncio.CancelledError):
        asyncio.run(_simulate(options, world, plan, token, seconds))


def _plan(options: argparse.Namespace, world: World) -> Plan:
    if not 1 <= options.nodes <= _MOST_NODES:
        raise ValueError(f"--nodes {options.nodes} is not between 1 and {_MOST_NODES}")
    if not re.fullmatch(r"https?://[^\s/?#]+/?", options.server):
        raise ValueError(f"--server {options.server!r} is no URL, such as http://127.0.0.1:8080")
    if options.connections < 1:
        raise ValueError("--connections must be above 0")
    if not 0 <= options.peers <= _MOST_NODES:
        raise ValueError(f"--peers {options.peers} is not between 0 and {_MOST_NODES}")
    past = 0.0 if options.past == "0" else parse_duration("--past", options.past).total_seconds()
    if options.rate is None:
        return Plan(_DEFAULT_SECONDS, past)
    if not options.rate > 0:
        raise ValueError("--rate must be above 0")
    points = options.nodes * (2 + 2 * len(world.peers(0)))
    return Plan(points / options.rate, past)


async def _simulate(
    options: argparse.Namespace,
    world: World,
    plan: Plan,
    token: str | None,
    seconds: float | None,
) -> None:
    clock = SystemClock()
    identities = await _identities(options, world, token)
    _print_plan(identities, world, plan)
    async with Uplink(options.server, options.connections, clock) as uplink:
        simulation = Simulation(plan, world, identities, uplink, clock)
        running = asyncio.create_task(simulation.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, running.cancel)
        announcing = asyncio.create_task(_announce(simulation, uplink, plan))
        try:
            await asyncio.wait([running, announcing], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait([running], timeout=seconds)
        finally:
            await cancel(running, announcing)
            if not running.cancelled():
                await running
            _print_sum(uplink.sent(), simulation)


async def _announce(simulation: Simulation, uplink: Uplink, plan: Plan) -> None:
    await simulation.past_reported.wait()
    if plan.past_seconds:
        put(f"the past is told: {uplink.sent().points:,} points\n")


async def _identities(
    options: argparse.Namespace, world: World, token: str | None
) -> list[SimulatedIdentity]:
    names = [world.name(node) for node in range(world.nodes)]
    if token is None:
        return await asyncio.to_thread(register_here, options.data_dir, names, SystemClock())
    return await enrol(options.server, token, names)


def _token(options: argparse.Namespace) -> str:
    try:
        return str(options.token_file.read_text("ascii").strip())
    except (OSError, UnicodeDecodeError) as err:
        reason = getattr(err, "strerror", None) or "it holds more than ASCII"
        raise ValueError(f"--token-file {options.token_file} cannot be read: {reason}") from err


def _print_plan(identities: list[SimulatedIdentity], world: World, plan: Plan) -> None:
    peers = len(world.peers(0))
    rate = len(identities) * (2 + 2 * peers) / plan.interval_seconds
    put(
        f"simulating {len(identities):,} nodes with {peers} peers each, read every "
        f"{plan.interval_seconds:.3g} s: {rate:,.0f} points/s; Ctrl-C ends it\n"
    )


def _print_sum(sent: Sent, simulation: Simulation) -> None:
    put(
        f"{sent.points:,} points in {sent.batches:,} batches accepted, {sent.retries} retries; "
        f"a batch took {1000 * sent.p50_seconds:.1f} ms (median), "
        f"{1000 * sent.p99_seconds:.1f} ms (p99); {max(0.0, simulation.late_seconds):.1f} s late\n"
    )

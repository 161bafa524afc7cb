"""A blocked event loop is logged, and systemd is notified of one that runs."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from plexd.agent.app import run
from plexd.agent.config.settings import Settings, WireGuardSettings
from plexd.agent.identity import Identity
from plexd.agent.watchdog import (
    Watchdog,
    notify_systemd,
    systemd_notifier,
    watchdog_interval,
)
from plexd.api import Config
from plexd.metrics import Config as MetricsConfig
from plexd.metrics.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LOGGER = logging.getLogger("plexd.test.watchdog")


@asynccontextmanager
async def watching(watchdog: Watchdog) -> AsyncIterator[None]:
    task = asyncio.create_task(watchdog.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_loop_that_was_blocked_is_logged_with_the_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    async with watching(Watchdog(LOGGER, clock=clock)):
        await clock.advance(10)
        assert caplog.records == []
        clock._elapsed += 20  # nothing ran meanwhile
        await clock.advance(0)
        await clock.advance(2)
    (record,) = caplog.records
    assert record.getMessage() == "event loop blocked"
    assert record.seconds == pytest.approx(19, abs=1)  # type: ignore[attr-defined]  # extra


@pytest.mark.slow
async def test_a_loop_really_blocked_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    async with watching(Watchdog(LOGGER)):
        await asyncio.sleep(0)
        time.sleep(3.1)  # noqa: ASYNC251  # the point
        await asyncio.sleep(0.01)
    assert [r.getMessage() for r in caplog.records] == ["event loop blocked"]


async def test_systemd_is_notified_once_a_second(tmp_path: Path) -> None:
    clock = ManualClock()
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(0)
        alive = systemd_notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "60000000"})
        async with watching(Watchdog(LOGGER, notify=alive, clock=clock)):
            await clock.advance(3)
        assert [systemd.recv(100) for _ in range(4)] == [b"WATCHDOG=1"] * 4


@pytest.mark.parametrize(
    ("usec", "seconds"),
    [
        ("60000000", 1.0), ("2000000", 1.0), ("1000000", 0.5), ("1", 0.01), ("0", 0.01), ("", 1.0),
        ("-1", 1.0), ("soon", 1.0), ("٣", 1.0), ("9" * 5000, 1.0), ("18446744073709551615", 1.0),
    ],
)  # fmt: skip
def test_an_impatient_service_manager_is_notified_twice_in_its_timeout(
    usec: str, seconds: float
) -> None:
    assert watchdog_interval({"WATCHDOG_USEC": usec}) == seconds
    assert watchdog_interval({}) == 1.0


async def test_the_interval_is_that_between_two_notes() -> None:
    clock, notes = ManualClock(), list[float]()
    watchdog = Watchdog(
        LOGGER, notify=lambda: notes.append(clock.monotonic()), every_seconds=0.5, clock=clock
    )
    async with watching(watchdog):
        await clock.advance(2)
    assert [b - a for a, b in itertools.pairwise(notes)] == [0.5] * 4


def test_an_abstract_address_is_reached() -> None:
    name = f"plexd-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}")
        systemd.settimeout(0)
        alive = systemd_notifier({"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "1"})
        assert alive is not None
        alive()
        assert systemd.recv(100) == b"WATCHDOG=1"


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"NOTIFY_SOCKET": "/run/notify"},
        {"WATCHDOG_USEC": "1"},
        {"NOTIFY_SOCKET": "vsock:2:3", "WATCHDOG_USEC": "1"},
        {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"},
    ],
)
def test_a_service_manager_that_does_not_ask_is_not_notified(environ: dict[str, str]) -> None:
    assert systemd_notifier(environ) is None


def test_a_socket_that_has_gone_stops_nothing(tmp_path: Path) -> None:
    alive = systemd_notifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1"})
    assert alive is not None
    alive()


@pytest.mark.parametrize("is_abstract", [False, True])
def test_a_state_is_sent_to_systemd_and_without_it_to_nobody(
    tmp_path: Path, *, is_abstract: bool
) -> None:
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}" if is_abstract else name)
        systemd.settimeout(0)
        notify_systemd({"NOTIFY_SOCKET": f"@{name}" if is_abstract else name}, "READY=1")
        assert systemd.recv(100) == b"READY=1"
        for environ in ({}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "/no/such"}):
            notify_systemd(environ, "READY=1")
        with pytest.raises(BlockingIOError):
            systemd.recv(100)


async def test_the_agent_says_when_it_is_ready_and_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{tmp_path}/notify"
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    settings = Settings(
        data_dir=None,
        api=Config(base_url="http://127.0.0.1:9"),
        metrics=MetricsConfig(enabled=False),
        wireguard=WireGuardSettings(interface=""),
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        await run(settings, Identity("node-a", "", "k" * 32, "token"))
        assert (systemd.recv(100), systemd.recv(100)) == (b"READY=1", b"STOPPING=1")

"""What every folder of tests may use; nothing here runs unless a test asks for it."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import settings

from plexd.logs import StderrHandler
from support.tls import Authority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

# How long an example takes says how busy the machine is.
settings.register_profile("plexd", deadline=None)
settings.load_profile("plexd")

_OWN_FDS = Path("/proc/self/fd")
_BROWSER = "tests/browser/"
_PROGRAMS = ("tests/e2e/", "tests/faults/", _BROWSER)
_LONGEST = (*_PROGRAMS, "tests/server/", "tests/icmp/")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by folder; a test elsewhere says so itself."""
    for item in items:
        if item.nodeid.startswith((*_PROGRAMS, "tests/kernel/", "tests/property/")):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand each worker (``-n``) whole files, the long ones first; pages share their server.

    The marks of xdist's own groups are not seen with pytest 9.2 (pytest-xdist issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # noqa: PLC0415 -- it has no types; only with workers

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # as above
        def _split_scope(self, nodeid: str) -> str:
            return _BROWSER if nodeid.startswith(_BROWSER) else nodeid.partition("::")[0]

        def _assign_work_unit(self, node: Any) -> None:
            self.workqueue.move_to_end(min(self.workqueue, key=_rank), last=False)
            super()._assign_work_unit(node)

    return ByFile(config, log)


def _rank(file: str) -> int:
    ranks = (rank for rank, folder in enumerate(_LONGEST) if file.startswith(folder))
    return next(ranks, len(_LONGEST))


# The bound of pytest-timeout is an exception in the test, raised once. A task may swallow it, a
# call into C never sees it, and a test that failed has none while its fixtures end. This one needs
# no Python to run: it prints where every thread is and ends the process.
_SPARE_SECONDS = 30.0
_STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_STDERR] = os.dup(2)  # nothing is captured yet


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_STDERR])


@contextmanager
def _bounded(item: pytest.Item) -> Iterator[None]:
    mark = item.get_closest_marker("timeout")
    seconds = float(mark.args[0] if mark else item.config.getini("timeout")) + _SPARE_SECONDS
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[_STDERR])
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    with _bounded(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with _bounded(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with _bounded(item):
        return (yield)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority whose servers a client with its ``ca_file`` believes."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def few_authorities(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the test's authority the system's only one.

    Loading the real ones takes each client 40 ms.
    """
    authority.become_the_systems(monkeypatch)


@pytest.fixture
async def nothing_leaks() -> AsyncIterator[None]:
    """Fails a test that leaves tasks or sockets behind once it has closed what it opened."""
    tasks, sockets = asyncio.all_tasks(), _sockets()
    yield
    for _ in range(200):  # transports that were closed let go of their sockets a few turns later
        tasks.add(cast("asyncio.Task[object]", asyncio.current_task()))
        if not asyncio.all_tasks() - tasks and not _sockets() - sockets:
            return
        await asyncio.sleep(0)
    assert not asyncio.all_tasks() - tasks, "tasks left running"
    assert not _sockets() - sockets, "sockets left open"


def _sockets() -> set[str]:
    found = set()
    for entry in _OWN_FDS.iterdir():
        try:
            target = str(entry.readlink())
        except OSError:  # the directory's own descriptor, closed by now
            continue
        if target.startswith("socket:"):
            found.add(target)
    return found


@pytest.fixture
def _process_state() -> Iterator[None]:
    """Puts back what a command changes for the rest of its process."""
    root = logging.getLogger()
    level = root.level
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in numbers}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # the suite itself may run under nohup
    yield
    for handler in [found for found in root.handlers if isinstance(found, StderrHandler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    for number, handler_before in handlers.items():
        signal.signal(number, handler_before)

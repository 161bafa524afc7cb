"""The tables as a process of their own: it is killed, stopped, orphaned, and bounded."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from plexd.api import BatchName, Predecessor
from plexd_server.errors import StartError
from plexd_server.store import Apart, DuckDBStore, Report
from plexd_server.store.embedded.mark_cache import EPOCHS_IN_MEMORY
from server.reporting import Node, numbered
from server.running import Client, create_node, running
from support.points import EPOCH, EXAMPLE, NOW

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    import aiohttp

pytestmark = pytest.mark.slow


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[DuckDBStore]:
    made = DuckDBStore(tmp_path, apart=Apart())
    yield made
    await made.aclose()


def child_of(pid: int) -> int:
    """The one process that the threads of another one started."""
    found = [file.read_text().split() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    (child,) = [int(word) for words in found for word in words]
    return child


def our_child() -> int:
    """That of this process, which may have others."""
    found = [file.read_text().split() for file in Path("/proc/self/task").glob("*/children")]
    return next(
        int(word)
        for words in found
        for word in words
        if b"plexd_server.store.duckdb" in Path(f"/proc/{word}/cmdline").read_bytes()
    )


@contextmanager
def watched(pid: int) -> Iterator[int]:
    """A descriptor that is readable once the process has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def has_ended(descriptor: int, seconds: float = 10) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])


def batch(number: int, epoch: str = EPOCH) -> Report:
    """The ``number``-th batch of an epoch, of three points like all of them."""
    name = BatchName(epoch, 3 * number - 2, 3)
    return Report("n1", EXAMPLE, NOW, name, Predecessor())


async def test_killed_tables_are_started_again_and_nothing_is_lost_or_doubled(
    store: DuckDBStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(1, 4):
        assert not (await store.write(batch(2 * number - 1))).receipt.duplicate
        os.kill(our_child(), signal.SIGKILL)
        assert not (await store.write(batch(2 * number))).receipt.duplicate
        assert (await store.ledger("n1")).received == 6 * number
    assert (await store.write(batch(6))).receipt.duplicate
    await store.check()
    await store.aclose()

    assert list((tmp_path / "journal").iterdir()) == []
    again = DuckDBStore(tmp_path)  # which counts its points and its receipts
    assert (await again.ledger("n1")).received == 18
    await again.aclose()
    causes = {vars(record).get("error") for record in caplog.records}
    assert "its process was ended by signal 9" in causes


async def test_reports_do_not_wait_for_tables_that_stand_still(store: DuckDBStore) -> None:
    epochs = [f"{number:032x}" for number in range(2 * EPOCHS_IN_MEMORY)]
    for epoch in epochs:
        await store.write(batch(1, epoch))
    child = our_child()
    os.kill(child, signal.SIGSTOP)
    asking = asyncio.create_task(store.ledger("n1"))
    for number in range(200):
        assert not (await store.write(batch(1, f"{number + 1000:032x}"))).receipt.duplicate
    assert not asking.done()

    os.kill(child, signal.SIGCONT)
    assert (await asking).received >= 3 * len(epochs)
    assert (await store.write(batch(1, epochs[0]))).receipt.duplicate
    assert (await store.ledger("n1")).received == 3 * (len(epochs) + 200)


async def test_a_cancelled_question_holds_up_no_other(store: DuckDBStore) -> None:
    await store.write(batch(1))
    child = our_child()
    os.kill(child, signal.SIGSTOP)
    cancelled = [asyncio.create_task(store.latest("n1")) for _ in range(4)]
    await asyncio.sleep(0)
    for task in cancelled:
        task.cancel()
    os.kill(child, signal.SIGCONT)

    assert len(await store.latest("n1")) == 3


async def test_the_tables_are_the_first_to_go(store: DuckDBStore) -> None:
    await store.check()
    process = Path(f"/proc/{our_child()}")

    assert int((process / "stat").read_text().rpartition(")")[2].split()[16]) >= 5
    assert int((process / "oom_score_adj").read_text()) >= 300
    assert "Max data size             1560870912" in (process / "limits").read_text()


async def test_a_second_store_is_refused_also_while_the_tables_are_away(
    store: DuckDBStore, tmp_path: Path
) -> None:
    os.kill(our_child(), signal.SIGKILL)
    with pytest.raises(StartError, match=rf"in use by another process \(pid {os.getpid()}\)"):
        DuckDBStore(tmp_path)

    await store.check()


async def test_files_that_were_replaced_while_the_tables_were_dead_are_not_opened(
    store: DuckDBStore, tmp_path: Path
) -> None:
    await store.write(batch(1))
    await store.check()
    path = tmp_path / "points.duckdb"
    path.rename(tmp_path / "moved")
    os.kill(our_child(), signal.SIGKILL)
    with pytest.raises(Exception, match="not in their place"):
        await store.write(batch(2))
    assert not path.exists()

    (tmp_path / "moved").rename(path)
    assert not (await store.write(batch(2))).receipt.duplicate
    assert (await store.ledger("n1")).received == 6


async def test_the_tables_end_with_a_front_that_is_killed_and_the_next_start_has_all(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    data = tmp_path / "d"
    token = create_node(data)["auth_token"]
    with running(data) as server:
        node = Node(Client(session, server.url, token))
        assert (await node.send(1, numbered(1, 2), points=2)).status == 200
        with watched(child_of(server.process.pid)) as tables:
            server.process.kill()
            assert has_ended(tables)
    with running(data) as server:
        node.client = Client(session, server.url, token)
        assert (await node.send(3, numbered(3), points=1)).status == 200
        assert (await node.ledger())["received"] == 3


async def test_signals_for_all_end_the_front_first(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    """As a service manager sends them, or a terminal."""
    data = tmp_path / "d"
    token = create_node(data)["auth_token"]
    with running(data) as server:
        node = Node(Client(session, server.url, token))
        assert (await node.send(1, numbered(1, 2), points=2)).status == 200
        child = child_of(server.process.pid)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(child, number)
        assert (await node.ledger())["received"] == 2
        assert child_of(server.process.pid) == child
        assert server.stop() == 0

    assert list((data / "journal").iterdir()) == []


def test_the_front_loads_neither_duckdb_nor_numpy() -> None:
    loaded = "import plexd_server.app, sys; print({'duckdb', 'numpy'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, check=True)

    assert done.stdout == b"set()\n"

"""What a start makes of a journal that the tables have not, of whichever version."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest
from isal import isal_zlib

from plexd.api import BatchName, MetricBatch, Predecessor
from plexd.durable import make_directory
from plexd_server.errors import JournalDamaged
from plexd_server.store import DuckDBStore, Ledger, Report
from plexd_server.store.embedded.mark_cache import EPOCHS_IN_MEMORY
from plexd_server.store.journal import Journal
from support.embedded import tables_of
from support.points import EPOCH, EXAMPLE, NOW

if TYPE_CHECKING:
    from pathlib import Path


def batch(number: int, epoch: str = EPOCH, **more: object) -> Report:
    """The ``number``-th batch of an epoch, of three points like all of them."""
    name = BatchName(epoch, 3 * number - 2, 3)
    return msgspec.structs.replace(Report("n1", EXAMPLE, NOW, name, Predecessor()), **more)


def of_0_1_0(report: Report) -> bytes:
    """The record that release 0.1.0 made of a report."""
    text = MetricBatch(report.points).to_json() if report.points else b""
    return msgspec.msgpack.encode(
        (
            *(1, report.node_id, report.received_at, report.address, report.name, report.after),
            *(report.dropped, report.is_rejected, report.ahead),
            isal_zlib.compress(text, 0, 31) if text else b"",
        )
    )


REPORTS = [
    batch(1),
    batch(1),  # a duplicate
    batch(3, dropped=2),  # one batch is missing
    batch(4, ahead=(1,)),
    batch(5, points=(), is_rejected=True),
    *(batch(1, f"{number:032x}") for number in range(2 * EPOCHS_IN_MEMORY)),
    Report("n2", EXAMPLE, NOW),
]


async def written(directory: Path) -> Ledger:
    """The ledger of the node when a store is told all of it."""
    make_directory(directory)
    store = DuckDBStore(directory)
    for report in REPORTS:
        await store.write(report)
    ledger = await store.ledger("n1")
    await store.aclose()
    return ledger


async def found(directory: Path) -> Ledger:
    """That of a start, which ends as it has to, and of the next one."""
    store = DuckDBStore(directory)
    ledger = await store.ledger("n1")
    await store.aclose()
    again = DuckDBStore(directory)  # which counts points and receipts
    assert await again.ledger("n1") == ledger
    assert (await again.write(batch(1, f"{0:032x}"))).receipt.duplicate
    assert not (await again.write(batch(6))).receipt.duplicate
    await again.aclose()
    return ledger


def uncounted(ledger: Ledger) -> Ledger:
    """Duplicates are counted in memory, and stored with what comes next."""
    return msgspec.structs.replace(ledger, duplicates=0)


@pytest.mark.parametrize("has_database", [True, False])
async def test_records_of_release_0_1_0_are_loaded_as_it_would_have_loaded_them(
    tmp_path: Path, *, has_database: bool
) -> None:
    expected = await written(tmp_path / "told")
    data = tmp_path / "d"
    make_directory(data)
    if has_database:
        DuckDBStore(data).close()
    journal = Journal(data / "journal")
    assert list(journal.replay(0)) == []
    journal.append([of_0_1_0(report) for report in REPORTS])
    journal.close()

    assert uncounted(await found(data)) == uncounted(expected)


async def test_a_journal_without_its_database_is_loaded_whole(tmp_path: Path) -> None:
    make_directory(tmp_path / "d")
    store = DuckDBStore(tmp_path / "d")
    await store.write(batch(1))
    await store.write(batch(1, "f" * 32))
    await store.aclose()
    store = DuckDBStore(tmp_path / "d")
    for number in range(2, 5):
        await store.write(batch(number))
        await store.check()
    shutil.copytree(tmp_path / "d" / "journal", tmp_path / "copy" / "journal")
    await store.aclose()

    again = DuckDBStore(tmp_path / "copy")
    assert (await again.write(batch(4))).receipt.duplicate
    assert (await again.ledger("n1")).received == 12  # with those that are gone
    with tables_of(again).connection.cursor() as cursor:
        points = cursor.execute("SELECT count(*) FROM points_system").fetchall()
    assert points == [(3,)]
    await again.aclose()
    await DuckDBStore(tmp_path / "copy").aclose()


async def test_a_record_of_a_newer_version_is_named(tmp_path: Path) -> None:
    DuckDBStore(tmp_path).close()
    journal = Journal(tmp_path / "journal")
    assert list(journal.replay(0)) == []
    journal.append([msgspec.msgpack.encode((3, "n1", NOW, 0, (), (), (), (), b""))])
    journal.close()

    with pytest.raises(JournalDamaged, match=r"record 1: .* a newer server wrote"):
        DuckDBStore(tmp_path)

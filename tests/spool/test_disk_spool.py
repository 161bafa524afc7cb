"""What only a spool on a disk promises."""

# ruff: noqa: ASYNC240  # looks at small files in between, with nothing else to run

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import pytest

from plexd.api import EncodeError, MetricPoint, Predecessor
from plexd.metrics.testing import ManualClock
from plexd.spool import DiskSpool, Refusal, SpoolLockedError, clocks
from spool.balance import balanced
from support.faulty_disk import FaultyDisk
from support.latency import latency_points as points
from support.receivers import StrictReceiver

if TYPE_CHECKING:
    from plexd.api import MetricBatch
    from plexd.spool import Spool

_MIB = 2**20


@pytest.fixture
def directory(fast_path: Path) -> Path:
    return fast_path / "spool"


async def refuse_head(spool: Spool, count: int) -> MetricBatch:
    head = await spool.head(count)
    assert head is not None
    await spool.set_aside(Refusal(head, "no"))
    return head


def files(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def set_aside(directory: Path) -> int:
    """How many databases, whatever became of their logs."""
    return sum(path.suffix.endswith("Z") for path in directory.glob("spool.db.corrupt-*"))


# What survives


@pytest.mark.parametrize("is_killed", [False, True], ids=["closed", "killed"])
async def test_the_next_process_finds_everything_as_it_was(
    directory: Path, is_killed: bool
) -> None:
    clock = ManualClock()
    async with DiskSpool(directory, clock=clock) as spool:
        await spool.append(points(20))
        await refuse_head(spool, 3)
        head = await spool.head(5)
        await spool.append(points(5, 20))
        await clock.advance(60)
        before = spool.statistics()
        letters = await spool.dead_letters()
        left = directory.with_name("left") if is_killed else directory
        if is_killed:
            shutil.copytree(directory, left)
    async with DiskSpool(left, clock=clock) as spool:
        assert spool.statistics() == before
        assert await spool.head(5) == head
        assert await spool.dead_letters() == letters
    assert before.oldest_seconds == 60
    assert (before.waiting, before.refused) == (22, 3)
    assert head is not None
    assert head.dropped == 3


async def test_each_life_names_its_points_in_an_epoch_of_its_own(directory: Path) -> None:
    batches = []
    for first in range(3):
        async with DiskSpool(directory) as spool:
            await spool.append(points(2, first))
            head = await spool.head(5)
            assert head is not None
            assert head.name is not None
            batches.append(head)
            await spool.acknowledge(head.name)
    names = [batch.name for batch in batches if batch.name is not None]
    assert [(name.first, name.last) for name in names] == [(1, 2)] * 3
    assert len({name.epoch for name in names}) == 3
    assert [batch.after for batch in batches] == [
        Predecessor(),
        Predecessor(names[0].epoch, 2),
        Predecessor(names[1].epoch, 2),
    ]


async def test_what_a_life_left_is_delivered_under_its_names_before_the_next_ones(
    directory: Path,
) -> None:
    receiver = StrictReceiver()
    async with DiskSpool(directory) as spool:
        await spool.append(points(5))
        first = await spool.head(3)
        assert first is not None
        receiver.accept(first)  # and no answer
    async with DiskSpool(directory) as spool:
        await spool.append(points(2, 5))
        assert await spool.head(3) == first
        await receiver.drain(spool, limit=3)
    assert (len(receiver.points), receiver.lost) == (7, 0)


@pytest.mark.parametrize("is_delivered", [True, False])
async def test_a_copy_of_the_directory_uses_no_name_of_the_original(
    directory: Path, is_delivered: bool
) -> None:
    receiver = StrictReceiver()
    async with DiskSpool(directory) as spool:
        await spool.append(points(5))
        if is_delivered:
            await receiver.drain(spool)
    shutil.copytree(directory, directory.with_name("copy"))
    for number, place in enumerate((directory, directory.with_name("copy"))):
        async with DiskSpool(place) as spool:
            await spool.append(points(3, 10 + 10 * number))
            await receiver.drain(spool)
    assert len(receiver.points) == 11


# Another node's


async def test_points_of_another_node_are_set_aside_and_come_back_with_it(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with DiskSpool(directory, node_id="a/b") as spool:
        await spool.append(points(5))
    async with DiskSpool(directory, node_id="n2") as spool:
        assert await spool.head(5) is None
        await spool.append(points(2, 5))
    async with DiskSpool(directory, node_id="a/b") as spool:
        head = await spool.head(9)
        assert head is not None
        assert list(head) == points(5)
    names = {path.name for path in directory.parent.iterdir() if path.name.startswith("spool")}
    assert names == {"spool", "spool.of-n2"}
    assert [record.getMessage() for record in caplog.records] == [
        "spool of another node set aside"
    ] * 2


async def test_points_of_another_node_that_cannot_be_moved_away_are_never_delivered(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    async with DiskSpool(directory, node_id="n1") as spool:
        await spool.append(points(5))

    def refuse(*_: object) -> Path:
        raise PermissionError(13, "Permission denied")

    spool = DiskSpool(directory, node_id="n2", clock=clock)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        for first in (5, 6):
            await spool.append(points(1, first))
            assert spool.statistics().degraded == "Permission denied"
            await clock.advance(16)
    async with spool:
        await spool.append(points(1, 7))
        head = await spool.head(9)
        assert head is not None
        assert list(head) == points(3, 5)
        assert not spool.statistics().degraded
    async with DiskSpool(directory, node_id="n1") as spool:
        assert spool.statistics().waiting == 5


async def test_a_spool_without_a_node_is_taken_over_by_the_first(directory: Path) -> None:
    async with DiskSpool(directory) as spool:
        await spool.append(points(5))
    async with DiskSpool(directory, node_id="n1") as spool:
        assert spool.statistics().waiting == 5


# Budget


async def test_files_stay_within_max_bytes_however_much_comes_in(directory: Path) -> None:
    receiver = StrictReceiver()
    most = 0
    async with DiskSpool(directory, max_bytes=_MIB) as spool:
        for cycle in range(150):
            await spool.append(points(200, 200 * cycle))
            most = max(most, files(directory))
            if cycle % 3 == 0:
                most = max(most, files(directory))
        found = balanced(spool.statistics())
        await receiver.drain(spool)
        drained = files(directory)
    assert most <= _MIB
    assert found.evicted > 0
    assert found.stored_bytes > _MIB // 3
    assert receiver.lost == found.evicted
    assert drained < _MIB // 2


@pytest.mark.parametrize("limit", [1, 15, 33, 500])
async def test_files_stay_within_max_bytes_with_batches_of_any_size(
    directory: Path, limit: int
) -> None:
    receiver = StrictReceiver()
    async with DiskSpool(directory, max_bytes=_MIB) as spool:
        for cycle in range(25):
            await spool.append(points(500, 500 * cycle))
            await receiver.drain(spool, 3, limit=limit)
            assert files(directory) <= _MIB
        balanced(spool.statistics())


@pytest.mark.slow
async def test_a_drained_backlog_leaves_a_small_file(directory: Path) -> None:
    async with DiskSpool(directory) as spool:
        for cycle in range(50):
            await spool.append(points(1000, 1000 * cycle))
        before = (directory / "spool.db").stat().st_size
        await StrictReceiver().drain(spool)
    assert before > 5 * _MIB
    assert (directory / "spool.db").stat().st_size < 3 * _MIB


async def test_points_beyond_the_maximum_age_are_dropped_and_reported(directory: Path) -> None:
    clock, receiver = ManualClock(), StrictReceiver()
    async with DiskSpool(directory, max_age=timedelta(hours=1), clock=clock) as spool:
        await spool.append(points(10))
        await spool.append(points(3, 10))
        await clock.advance(3000)
        await spool.append(points(2, 13))
        await clock.advance(700)
        await receiver.drain(spool)
        assert balanced(spool.statistics()).expired == 13
    assert (len(receiver.points), receiver.lost) == (2, 13)


async def test_a_step_of_the_wall_clock_expires_nothing_while_the_process_runs(
    directory: Path,
) -> None:
    clock = ManualClock()
    async with DiskSpool(directory, max_age=timedelta(hours=1), clock=clock) as spool:
        await spool.append(points(3))
        for days in (4000, -8000, 4000):
            clock.step(timedelta(days=days))
            await spool.append(points(1, 3))
        assert spool.statistics().expired == 0
        assert spool.statistics().oldest_seconds == 0
        clock.step(timedelta(days=-1))
        await spool.append(points(1, 9))
    async with DiskSpool(directory, max_age=timedelta(hours=1), clock=clock) as spool:
        assert await spool.head(5) is not None


@pytest.mark.parametrize("is_rebooted", [False, True])
async def test_the_time_the_process_was_away_counts(
    directory: Path, is_rebooted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    async with DiskSpool(directory, max_age=timedelta(hours=1), clock=clock) as spool:
        await spool.append(points(3))
    if is_rebooted:  # the monotonic clock began again
        monkeypatch.setattr(clocks, "boot_id", lambda: "another")
        clock.step(timedelta(hours=2))
    else:
        await clock.advance(7200)
    async with DiskSpool(directory, max_age=timedelta(hours=1), clock=clock) as spool:
        assert await spool.head(5) is None
        assert balanced(spool.statistics()).expired == 3


async def test_a_wall_clock_set_between_two_lives_expires_nothing_fresh(directory: Path) -> None:
    clock = ManualClock()
    for days in (400, 400, -2000):
        async with DiskSpool(directory, max_age=timedelta(hours=1), clock=clock) as spool:
            await spool.append(points(1))
        clock.step(timedelta(days=days))
    async with DiskSpool(directory, max_age=timedelta(hours=1), clock=clock) as spool:
        assert await spool.head(5) is not None
        assert spool.statistics().expired == 0


async def test_a_clock_that_was_not_set_before_a_reboot_expires_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    now = clock.now()
    clock.step(datetime(1970, 1, 1, 0, 1, tzinfo=UTC) - now)
    async with DiskSpool(directory, max_age=timedelta(hours=1), clock=clock) as spool:
        await spool.append(points(1))
    monkeypatch.setattr(clocks, "boot_id", lambda: "another")
    clock.step(now - clock.now())
    async with DiskSpool(directory, max_age=timedelta(hours=1), clock=clock) as spool:
        assert await spool.head(5) is not None


async def test_dead_letters_are_bounded(directory: Path) -> None:
    async with DiskSpool(directory) as spool:
        await spool.append(points(100))
        for _ in range(100):
            await refuse_head(spool, 1)
        letters = await spool.dead_letters()
        assert len(letters) == spool.statistics().dead_letters == 64
        assert [letter.batch[0].peer_id for letter in letters[-2:]] == ["peer-98", "peer-99"]


async def test_a_point_without_json_is_the_callers_fault_and_changes_nothing(
    directory: Path,
) -> None:
    wrong = MetricPoint(timestamp=points(1)[0].timestamp, group="latency", data=float("nan"))  # type: ignore[arg-type]  # that is the point
    async with DiskSpool(directory) as spool:
        with pytest.raises(EncodeError):
            await spool.append([*points(1), wrong])
        assert spool.statistics().appended == 0


# Locks and rights


async def test_a_second_spool_in_the_same_directory_names_the_first_ones_process(
    directory: Path,
) -> None:
    code = (
        "import asyncio, pathlib, sys\n"
        "from plexd.spool import DiskSpool\n"
        "async def main():\n"
        "    async with DiskSpool(pathlib.Path(sys.argv[1])):\n"
        "        pass\n"
        "asyncio.run(main())\n"
    )
    async with DiskSpool(directory) as spool:
        await spool.append(points(1))
        second = DiskSpool(directory)
        with pytest.raises(SpoolLockedError, match=f"^spool locked by pid {os.getpid()}$"):
            await second.append(points(1))
        await second.aclose()
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", code, str(directory)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert f"SpoolLockedError: spool locked by pid {os.getpid()}" in done.stderr
        assert spool.statistics().waiting == 1
    async with DiskSpool(directory) as spool:
        assert spool.statistics().waiting == 1


async def test_nobody_else_can_read_what_is_in_it(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    async with DiskSpool(directory) as spool:
        await spool.append(points(1))
        modes = {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert directory.stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}
    assert set(modes) == {"spool.db", "spool.db-wal", "spool.lock", "spool.mark", "spool.ballast"}


@pytest.mark.parametrize("name", ["spool.db", "spool.mark", "spool.lock", "spool.ballast"])
async def test_a_symbolic_link_is_not_followed(directory: Path, name: str) -> None:
    directory.mkdir()
    elsewhere = directory.with_name("elsewhere")
    elsewhere.write_bytes(b"mine")
    (directory / name).symlink_to(elsewhere)
    async with DiskSpool(directory) as spool:
        await spool.append(points(1))
        assert balanced(spool.statistics()).waiting == 1
    assert elsewhere.read_bytes() == b"mine"


# Damage beyond a byte


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000], ids=["empty", "foreign"])
async def test_a_file_that_is_no_database_is_set_aside_and_its_points_are_counted(
    directory: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with DiskSpool(directory) as spool:
        await spool.append(points(5))
    (directory / "spool.db").write_bytes(content)
    async with DiskSpool(directory) as spool:
        found = balanced(spool.statistics())
        assert (found.appended, found.damaged) == (5, 5)
        await spool.append(points(1, 5))
        head = await spool.head(5)
        assert head is not None
        assert head.after == Predecessor(skipped=5)
    assert any(record.getMessage() == "spool damaged" for record in caplog.records)
    assert set_aside(directory) == (1 if content else 0)


async def test_a_spool_of_a_newer_version_is_set_aside_and_its_readable_rows_are_kept(
    directory: Path,
) -> None:
    async with DiskSpool(directory) as spool:
        await spool.append(points(5))
        before = await spool.head(5)
    connection = apsw.Connection(str(directory / "spool.db"))
    connection.execute("PRAGMA user_version=99")
    connection.close()
    async with DiskSpool(directory) as spool:
        assert await spool.head(5) == before
        assert balanced(spool.statistics()).damaged == 0
    assert set_aside(directory) == 1


async def test_only_the_newest_files_are_kept_of_those_set_aside(directory: Path) -> None:
    clock = ManualClock()
    for _ in range(5):
        async with DiskSpool(directory, clock=clock) as spool:
            await spool.append(points(1))
        (directory / "spool.db").write_bytes(b"x" * 5000)
        await clock.advance(1)
    async with DiskSpool(directory, clock=clock) as spool:
        assert balanced(spool.statistics()).damaged == 5
    assert set_aside(directory) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "column", ["body", "points", "epoch", "place", "kind", "stamped", "digest"]
)
@pytest.mark.parametrize("value", ["NULL", "x'00'", "'text'", "9223372036854775807", "-1", "1.5"])
async def test_a_row_with_any_wrong_value_is_counted_and_the_others_are_delivered(
    directory: Path, column: str, value: str
) -> None:
    receiver = StrictReceiver()
    async with DiskSpool(directory) as spool:
        for first in (0, 5, 10):
            await spool.append(points(5, first))
    connection = apsw.Connection(str(directory / "spool.db"))
    connection.execute("PRAGMA ignore_check_constraints=ON; PRAGMA writable_schema=ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ' NOT NULL', '')")
    connection.close()
    connection = apsw.Connection(str(directory / "spool.db"))
    connection.execute(f"UPDATE log SET {column} = {value} WHERE place = 10")
    connection.close()
    async with DiskSpool(directory) as spool:
        await receiver.drain(spool, limit=5)
        found = balanced(spool.statistics())
        assert (found.waiting, found.damaged) == (0, 5)
        assert len(receiver.points) == 10
        await spool.append(points(1, 15))
        await receiver.drain(spool)
    assert receiver.lost == 5


# Under a running agent


@pytest.mark.parametrize("what", ["database", "log", "mark", "directory", "renamed", "replaced"])
async def test_files_that_vanish_under_a_running_spool_are_made_again_without_a_loss(
    directory: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = StrictReceiver()
    async with DiskSpool(directory) as spool:
        await spool.append(points(10))
        await receiver.drain(spool, 1, limit=5)
        match what:
            case "database":
                (directory / "spool.db").unlink()
            case "log":
                (directory / "spool.db-wal").unlink()
            case "mark":
                (directory / "spool.mark").unlink()
            case "directory":
                shutil.rmtree(directory)
            case "renamed":
                directory.rename(directory.with_name("old"))
            case _:
                (directory / "spool.db").rename(directory / "other")
                (directory / "spool.db").write_bytes(b"something else" * 1000)
        await spool.append(points(3, 10))
        found = balanced(spool.statistics())
        assert (found.waiting, found.lost, found.degraded) == (8, 0, "")
        for first in range(13, 16):
            await spool.append(points(1, first))
        told = [record.getMessage() for record in caplog.records]
        has_mark, has_database = what not in {"mark", "directory", "renamed"}, what == "mark"
        assert told == ["spool set aside"] * (not has_database) + ["spool damaged"] * (not has_mark)
        left = directory.with_name("left")
        shutil.copytree(directory, left)
    async with DiskSpool(left) as spool:
        assert balanced(spool.statistics()).waiting == 11
    async with DiskSpool(directory) as spool:
        await receiver.drain(spool)
        assert balanced(spool.statistics()).lost == 0
        assert spool.statistics().waiting == 0
    assert len(receiver.points) == 16


async def test_without_its_directory_it_begins_in_memory_and_moves_to_the_disk_later(
    directory: Path,
) -> None:
    clock, receiver = ManualClock(), StrictReceiver()
    async with DiskSpool(directory / "spool", clock=clock) as spool:
        await spool.append(points(4))
        assert spool.statistics().degraded == "No such file or directory"
        head = await spool.head(5)
        directory.mkdir()
        await clock.advance(16)
        await spool.append(points(4, 4))
        assert not spool.statistics().degraded
        assert await spool.head(4) == head
        await receiver.drain(spool, 1, limit=5)
    async with DiskSpool(directory / "spool", clock=clock) as spool:
        await receiver.drain(spool)
        assert balanced(spool.statistics()).acknowledged == 8
    assert len(receiver.points) == 8


async def test_what_is_only_in_memory_when_it_closes_is_brought_to_the_disk_if_that_is_back(
    directory: Path,
) -> None:
    clock = ManualClock()
    with FaultyDisk("full", 1, lasting=True) as disk:
        async with DiskSpool(directory, clock=clock) as spool:
            await spool.append(points(4))
            assert spool.statistics().degraded
            disk.heal()
        async with DiskSpool(directory, clock=clock) as spool:
            assert balanced(spool.statistics()).waiting == 4


async def test_a_watermark_that_cannot_be_written_is_a_failure_of_the_disk(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, receiver = ManualClock(), StrictReceiver()
    async with DiskSpool(directory, clock=clock) as spool:
        await spool.append(points(4))

        def fail(*_: object) -> int:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", fail)
            for first in (4, 8):
                await spool.append(points(4, first))
                await receiver.drain(spool, 1, limit=5)
            assert spool.statistics().degraded == "Input/output error"
        await clock.advance(16)
        await spool.append(points(4, 12))
        await receiver.drain(spool)
        assert not spool.statistics().degraded
        assert balanced(spool.statistics()).acknowledged == 16
    assert len(receiver.points) == 16


async def test_a_full_disk_gets_its_ballast_back_and_goes_on(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultyDisk("full", 0) as disk:
        async with DiskSpool(directory) as spool:
            await spool.append(points(4))
            assert (directory / "spool.ballast").stat().st_size == _MIB
            disk.fail_while((directory / "spool.ballast").exists)
            await spool.append(points(4, 4))
            assert spool.statistics().degraded == ""
            assert not (directory / "spool.ballast").exists()
            disk.heal()
            assert balanced(spool.statistics()).waiting == 8
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# Callers


async def test_the_event_loop_does_not_wait_for_the_disk(directory: Path) -> None:
    with FaultyDisk("sync", 0) as disk:
        async with DiskSpool(directory) as spool:
            is_slow, may_go_on = asyncio.Event(), threading.Event()
            loop = asyncio.get_running_loop()

            def hang() -> bool:
                loop.call_soon_threadsafe(is_slow.set)
                may_go_on.wait(30)
                return False

            disk.fail_while(hang)
            appending = asyncio.create_task(spool.append(points(1)))
            await is_slow.wait()
            assert not appending.done()
            assert spool.statistics().appended == 0
            disk.heal()
            may_go_on.set()
            await appending
            assert spool.statistics().appended == 1


@pytest.mark.parametrize("turns", range(8))
async def test_a_caller_that_is_cancelled_leaves_nothing_half_done(
    directory: Path, turns: int
) -> None:
    receiver = StrictReceiver()
    async with DiskSpool(directory) as spool:

        async def work() -> None:
            await spool.append(points(6))
            await receiver.drain(spool)

        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await spool.append(points(1, 6))
        await receiver.drain(spool)
        found = balanced(spool.statistics())
        assert found.lost == found.waiting == 0
        assert len(receiver.points) == found.appended


async def test_closing_an_unopened_spool_makes_no_files(directory: Path) -> None:
    await DiskSpool(directory).aclose()
    assert not directory.exists()

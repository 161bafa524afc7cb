"""A mount point that does not answer costs one thread and one field of error text, no more."""

from __future__ import annotations

import asyncio
import threading
from typing import NoReturn

import pytest

from plexd.clock import SystemClock
from plexd.procfs import LinuxSystemReader, MountPoint, ProcfsError
from procfs.trees import (
    STATVFS,
    HangingStatvfs,
    ProcTree,
    SteppingClock,
    statvfs_threads,
    until,
)

HUNG = r"^/mnt/nas: statvfs has not answered for {} s$"


async def hang(mount: MountPoint, clock: SteppingClock, statvfs: HangingStatvfs) -> None:
    """One reading that runs into its deadline."""
    reading = asyncio.create_task(mount.read_usage())
    await until(statvfs.entered.is_set)
    await clock.advance(2)
    with pytest.raises(ProcfsError, match=HUNG.format(r"2\.0")):
        await reading


@pytest.fixture
def mount(clock: SteppingClock, hanging: HangingStatvfs) -> MountPoint:
    return MountPoint("/mnt/nas", clock=clock, statvfs=hanging)


async def test_a_hung_mount_fails_the_reading_at_its_deadline(
    mount: MountPoint, clock: SteppingClock, hanging: HangingStatvfs
) -> None:
    await hang(mount, clock, hanging)


async def test_readings_during_the_hang_fail_at_once_and_say_for_how_long(
    mount: MountPoint, clock: SteppingClock, hanging: HangingStatvfs
) -> None:
    await hang(mount, clock, hanging)
    await clock.advance(35)
    with pytest.raises(ProcfsError, match=HUNG.format(r"37\.0")):
        await mount.read_usage()
    assert hanging.calls == 1


async def test_fifty_readings_of_a_hung_mount_leave_one_thread(
    mount: MountPoint, clock: SteppingClock, hanging: HangingStatvfs
) -> None:
    await hang(mount, clock, hanging)
    for _ in range(50):
        with pytest.raises(ProcfsError):
            await mount.read_usage()
    assert statvfs_threads() == 1


async def test_fifty_readings_of_a_healthy_mount_leave_no_thread(clock: SteppingClock) -> None:
    mount = MountPoint("/mnt/nas", clock=clock, statvfs=lambda _: STATVFS)
    for _ in range(50):
        assert await mount.read_usage() == (750 * 4096, 1000 * 4096)
    await until(lambda: statvfs_threads() == 0)


async def test_a_mount_that_comes_back_is_read_again(
    mount: MountPoint, clock: SteppingClock, hanging: HangingStatvfs
) -> None:
    await hang(mount, clock, hanging)
    hanging.heal()
    await until(lambda: statvfs_threads() == 0)
    assert await mount.read_usage() == (750 * 4096, 1000 * 4096)
    assert hanging.calls == 2


async def test_a_mount_may_hang_again(
    mount: MountPoint, clock: SteppingClock, hanging: HangingStatvfs
) -> None:
    await hang(mount, clock, hanging)
    hanging.heal()
    await until(lambda: statvfs_threads() == 0)
    hanging.break_again()
    await hang(mount, clock, hanging)


async def test_readers_at_the_same_time_share_one_call(
    mount: MountPoint, hanging: HangingStatvfs
) -> None:
    readings = [asyncio.create_task(mount.read_usage()) for _ in range(10)]
    await until(hanging.entered.is_set)
    hanging.heal()
    assert len(set(await asyncio.gather(*readings))) == 1
    assert hanging.calls == 1


async def test_a_reader_that_is_cancelled_does_not_spoil_the_call_for_the_next(
    mount: MountPoint, hanging: HangingStatvfs
) -> None:
    first = asyncio.create_task(mount.read_usage())
    await until(hanging.entered.is_set)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(mount.read_usage())
    await asyncio.sleep(0)
    hanging.heal()
    assert await second == (750 * 4096, 1000 * 4096)
    assert hanging.calls == 1


async def test_the_event_loop_runs_while_the_mount_hangs(
    tree: ProcTree, clock: SteppingClock, hanging: HangingStatvfs
) -> None:
    reader = LinuxSystemReader("/mnt/nas", proc_root=tree.root, clock=clock, statvfs=hanging)
    reading = asyncio.create_task(reader.read_stats())
    await until(hanging.entered.is_set)
    for _ in range(1000):
        await asyncio.sleep(0)
    assert not reading.done()
    await clock.advance(2)
    with pytest.raises(ProcfsError, match=HUNG.format(r"2\.0")):
        await reading


async def test_the_cpu_is_sampled_while_the_disk_is_read(
    tree: ProcTree, clock: SteppingClock, hanging: HangingStatvfs
) -> None:
    reader = LinuxSystemReader(proc_root=tree.root, clock=clock, statvfs=hanging)
    reading = asyncio.create_task(reader.read_stats())
    await until(hanging.entered.is_set, lambda: clock.sleeps == [0.1])
    hanging.heal()
    assert (await reading).disk_used_bytes == 750 * 4096


async def test_a_missing_mount_point_is_named() -> None:
    with pytest.raises(ProcfsError) as failure:
        await LinuxSystemReader("/no/such/mount").read_stats()
    assert str(failure.value) == "/no/such/mount: statvfs: No such file or directory"
    assert isinstance(failure.value.__cause__, FileNotFoundError)


async def test_a_mount_point_no_path_can_have_is_named() -> None:
    with pytest.raises(ProcfsError, match=r"^/a\x00b: statvfs: embedded null"):
        await LinuxSystemReader("/a\0b").read_stats()


async def test_the_time_out_of_a_soft_network_mount_is_its_own_answer(
    clock: SteppingClock,
) -> None:
    def gives_up(path: str) -> NoReturn:
        raise TimeoutError(110, "Connection timed out", path)

    mount = MountPoint("/mnt/nas", clock=clock, statvfs=gives_up)
    for _ in range(2):
        with pytest.raises(ProcfsError, match=r"^/mnt/nas: statvfs: Connection timed out$"):
            await mount.read_usage()


async def test_a_machine_out_of_processes_gives_a_clear_error(
    clock: SteppingClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    mount = MountPoint("/mnt/nas", clock=clock, statvfs=lambda _: STATVFS)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(ProcfsError, match=r"^/mnt/nas: statvfs: can't start new thread$"):
            await mount.read_usage()
    assert await mount.read_usage() == (750 * 4096, 1000 * 4096)


def test_one_reader_may_serve_several_loops_in_turn() -> None:
    reader = LinuxSystemReader(statvfs=lambda _: STATVFS, clock=SystemClock())
    first, second = (asyncio.run(reader.read_stats()).disk_total_bytes for _ in range(2))
    assert first == second == 1000 * 4096

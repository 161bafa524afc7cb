"""A mount point that may hang, read so that nothing else does.

``statvfs`` on a dead NFS or FUSE mount does not return, and no deadline can end the thread that
waits in it. So each call runs in a daemon thread of its own, of which there is at most one:

    healthy   read_usage() starts a thread, which ends with the answer
    overdue   the deadline passes: this reading fails, the thread is left behind
    hung      while the thread waits, readings fail at once and start nothing
    healthy   the thread has ended: the next reading starts a new one, the late answer is not used

The default executor would not do: its threads are shared with name lookups, are joined when the
loop closes and again at exit, and one more would be stuck at every reading.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import Future
from threading import Thread
from typing import TYPE_CHECKING, Final

from plexd.procfs.errors import ProcfsError
from plexd.procfs.parse import Usage, parse_disk

if TYPE_CHECKING:
    from collections.abc import Callable

    from plexd.clock import Clock

DEADLINE_SECONDS: Final = 2.0


class _Call:
    """One ``statvfs`` under way; ``overdue`` once a reading has failed at its deadline."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.overdue = False
        self.answer: Future[os.statvfs_result] = Future()
        # A running future cannot be cancelled, so a cancelled reader does not affect the others.
        self.answer.set_running_or_notify_cancel()

    def run(self, statvfs: Callable[[str], os.statvfs_result], path: str) -> None:
        try:
            self.answer.set_result(statvfs(path))
        except BaseException as err:  # noqa: BLE001  # every error goes to the reader
            self.answer.set_exception(err)


class MountPoint:
    """How full the file system at ``path`` is.

    Used from one event loop at a time. At most one thread is left behind, a daemon, which keeps
    neither the loop nor the interpreter from ending.
    """

    def __init__(
        self, path: str, *, clock: Clock, statvfs: Callable[[str], os.statvfs_result] = os.statvfs
    ) -> None:
        self._path = path
        self._clock = clock
        self._statvfs = statvfs
        self._call: _Call | None = None

    async def read_usage(self) -> Usage:
        """Return what the file system answers within `DEADLINE_SECONDS`.

        Readers at the same time share one call. Raises `ProcfsError`, with the mount point in
        its text, when the path does not exist or cannot be read, when the answer is not
        valid, after the deadline, and at once while an earlier call hangs.
        """
        call = self._pending() or self._start()
        if call.overdue:
            raise self._hanging(call)
        try:
            async with self._clock.timeout(DEADLINE_SECONDS):
                stat = await asyncio.wrap_future(call.answer)
        except (OSError, ValueError) as err:
            raise self._failure(call, err) from err
        return parse_disk(stat, self._path)

    def _pending(self) -> _Call | None:
        call = self._call
        return None if call is None or call.answer.done() else call

    def _start(self) -> _Call:
        call = _Call(self._clock.monotonic())
        worker = Thread(
            target=call.run, args=(self._statvfs, self._path), name="plexd-statvfs", daemon=True
        )
        try:
            worker.start()
        except RuntimeError as err:  # the limit of processes is reached
            raise ProcfsError(self._path, f"statvfs: {err}") from err
        self._call = call
        return call

    def _failure(self, call: _Call, err: Exception) -> ProcfsError:
        # The deadline's TimeoutError is an OSError, and so is the ETIMEDOUT of a soft NFS mount:
        # they differ only in whether the call has returned.
        if call.answer.done():
            # Python 3.13 names the call in some of its own errors, 3.11 and 3.12 do not.
            reason = getattr(err, "strerror", None) or str(err).removeprefix("statvfs: ")
            return ProcfsError(self._path, f"statvfs: {reason}")
        call.overdue = True
        return self._hanging(call)

    def _hanging(self, call: _Call) -> ProcfsError:
        seconds = self._clock.monotonic() - call.started
        return ProcfsError(self._path, f"statvfs has not answered for {seconds:.1f} s")

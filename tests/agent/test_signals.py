from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from plexd.agent.signals import until_stopped

pytestmark = pytest.mark.usefixtures("_process_state")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_cancels_the_work_and_a_second_one_is_ignored(number: signal.Signals) -> None:
    seen: list[str] = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            os.kill(os.getpid(), number)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            seen.append("cleaned up")

    asyncio.run(until_stopped(work()))
    os.kill(os.getpid(), number)  # while the process is ending
    assert seen == ["cleaned up"]


def test_a_storm_of_signals_is_one_end() -> None:
    cancelled = 0

    async def work() -> None:
        nonlocal cancelled
        try:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM) * 20:
                os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled += 1
            for _ in range(10):
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.001)
            raise

    asyncio.run(until_stopped(work()))
    assert cancelled == 1


def test_a_program_started_by_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    seen: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        for _ in range(3):  # a handler would run in the next turns of the loop
            await asyncio.sleep(0)
        seen.append("went on")

    asyncio.run(until_stopped(work()))
    assert seen == ["went on"]


def test_work_that_ends_by_itself_is_waited_for_and_later_signals_are_ignored() -> None:
    seen: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        seen.append("ended")

    asyncio.run(until_stopped(work()))
    os.kill(os.getpid(), signal.SIGTERM)
    assert seen == ["ended"]


def test_a_cancellation_without_a_signal_is_a_failure() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(until_stopped(work()))


def test_a_failure_of_the_work_is_passed_on() -> None:
    async def work() -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(until_stopped(work()))


def test_sigterm_while_a_run_is_still_being_loaded_is_a_clean_end() -> None:
    script = (
        "import os, signal, sys\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'plexd.agent.cli.commands': os.kill(os.getpid(), signal.SIGTERM)\n"
        "sys.meta_path.insert(0, Stop())\n"
        "from plexd.agent.cli.main import main\n"
        "sys.exit(main(['run']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

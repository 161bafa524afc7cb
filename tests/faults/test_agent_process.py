"""The agent's process is signalled, stopped, starved and robbed (A04-A06, A11, A12, C10)."""

from __future__ import annotations

import resource
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from faults.bench import Node
from faults.forks import Forks
from support.oracle import ACCEPT, Answer, Oracle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from faults.forks import Started

PATIENCE = 20.0


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks("faults.subject") as found:
        yield found


@pytest.fixture
def oracle() -> Iterator[Oracle]:
    with Oracle() as found:
        yield found
        assert not found.contradictions


@pytest.fixture
def node(tmp_path: Path, oracle: Oracle) -> Node:
    return Node("node-1", tmp_path, oracle.url)


def until(condition: Callable[[], bool]) -> None:
    """Another process has nothing to wait on but what it shows."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.002)


def reports(oracle: Oracle, more: int) -> None:
    """Return once that many more reports have come."""
    target = oracle.attempts + more
    until(lambda: oracle.attempts >= target)


def is_exact(node: Node, oracle: Oracle, forks: Forks) -> None:
    """Deliver what is left; all that was promised has arrived once, and nothing twice."""
    node.drain(forks)
    found = node.account(oracle)
    assert found.told > 0
    assert found.is_exact, found


def stop(subject: Started, node: Node, number: int = signal.SIGTERM) -> None:
    subject.send(number)
    assert subject.wait(PATIENCE) == 0, node.log.read_text()
    assert "Traceback" not in node.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stopped_in_mid_report_it_leaves_its_spool_whole(
    node: Node, oracle: Oracle, forks: Forks, number: int
) -> None:
    """The answer takes longer than the grace, which at this hurry is 10 ms."""
    oracle.answers = lambda report: Answer(delay=0.5) if report.attempt > 5 else ACCEPT
    subject = node.start(forks)
    reports(oracle, 6)
    began = time.monotonic()
    stop(subject, node, number)
    assert time.monotonic() - began < 5
    oracle.answers = lambda _: ACCEPT
    is_exact(node, oracle, forks)


def test_a_storm_of_signals_is_one_clean_end(node: Node, oracle: Oracle, forks: Forks) -> None:
    subject = node.start(forks)
    reports(oracle, 3)
    for number in [signal.SIGINT, signal.SIGTERM, signal.SIGHUP] * 70:
        subject.send(number)
    stop(subject, node)
    is_exact(node, oracle, forks)


def test_held_for_twenty_intervals_it_makes_one_point_up_to_none_of_them(
    node: Node, oracle: Oracle, forks: Forks
) -> None:
    """100 ms an interval; a stop of 2 s is 20 of them, and one collection is due after it."""
    subject = node.start(forks, hurry=50.0, size=1)
    reports(oracle, 1)
    began = time.monotonic()
    collected = len(node.told())
    subject.send(signal.SIGSTOP)
    time.sleep(2.0)  # what is to be survived
    subject.send(signal.SIGCONT)
    reports(oracle, 1)
    more = len(node.told()) - collected
    intervals_awake = (time.monotonic() - began - 2.0) / 0.1
    assert more <= intervals_awake + 3
    stop(subject, node)
    is_exact(node, oracle, forks)


def replace_database(spool: Path) -> None:
    (spool / "spool.db").rename(spool / "other")
    (spool / "spool.db").write_bytes(b"something else" * 1000)


def delete(spool: Path) -> None:
    """Delete it; the agent may put new files into the directory meanwhile, which then stays."""
    shutil.rmtree(spool, ignore_errors=True)


@pytest.mark.parametrize(
    "remove",
    [
        delete,
        lambda spool: spool.rename(spool.with_name("elsewhere")),
        lambda spool: (spool / "spool.db").unlink(),
        replace_database,
    ],
    ids=["deleted", "renamed", "without its database", "with another database"],
)
def test_a_spool_that_is_taken_away_under_it_costs_nothing(
    node: Node, oracle: Oracle, forks: Forks, remove: Callable[[Path], None]
) -> None:
    """With nothing delivered since it began, all of it is owed from the files that are gone."""
    oracle.answers = lambda _: Answer(status=503)
    subject = node.start(forks)
    until(lambda: len(node.told()) > 50)
    remove(node.directory / "spool")
    taken = len(node.told())
    until(lambda: len(node.told()) > taken + 50)
    assert "spool set aside" in node.log.read_text()
    oracle.answers = lambda _: ACCEPT
    stop(subject, node)
    is_exact(node, oracle, forks)


def test_without_descriptors_it_waits_and_goes_on_when_there_are_some(
    node: Node, oracle: Oracle, forks: Forks
) -> None:
    # Each answer ends its connection, so that the next report has to open one.
    oracle.answers = lambda _: Answer(cut_at=60)
    subject = node.start(forks)
    reports(oracle, 3)
    limits = resource.prlimit(subject.pid, resource.RLIMIT_NOFILE)
    held = len(list(Path(f"/proc/{subject.pid}/fd").iterdir()))
    resource.prlimit(subject.pid, resource.RLIMIT_NOFILE, (held - 2, limits[1]))
    until(lambda: "Too many open files" in node.log.read_text())
    resource.prlimit(subject.pid, resource.RLIMIT_NOFILE, limits)
    oracle.answers = lambda _: ACCEPT
    reports(oracle, 5)
    stop(subject, node)
    is_exact(node, oracle, forks)


@pytest.mark.parametrize("spare_mib", [0, 2, 8])
def test_out_of_memory_it_keeps_its_promises(
    node: Node, oracle: Oracle, forks: Forks, spare_mib: int
) -> None:
    """It may fail in any way, or be killed as by the kernel; another run delivers."""
    node.settings["batch_size"] = 5000
    subject = node.start(forks, size=500)
    until(lambda: len(node.told()) > 0)
    pages = int((subject.status("statm")).split()[0])
    limit = pages * resource.getpagesize() + spare_mib * 2**20
    resource.prlimit(subject.pid, resource.RLIMIT_AS, (limit, limit))
    time.sleep(0.3)  # as long as memory is short
    if subject.is_alive():
        subject.send(signal.SIGKILL)
    subject.wait(PATIENCE)
    is_exact(node, oracle, forks)

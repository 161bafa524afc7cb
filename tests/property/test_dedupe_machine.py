"""A node and a server that fail at every step, against a model that cannot.

The node sends its points in runs of places, loses some before they are sent, has some rejected, and
repeats what it sent before. The server fails commits and restarts, and forgets what was not
committed. Each point is stored once, and the ledger counts all others. What clones and snapshots do
is in ``test_lives_machine.py``.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from plexd.api import BatchName, LatencyResult, MetricPoint, Predecessor
from plexd_server.errors import StoreError
from plexd_server.store import DuckDBStore, Report
from support.embedded import tables_of
from support.points import NOW
from support.pure_server import PureServer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import Receipt
    from plexd_server.store import Ledger
    from plexd_server.store.journal import Journal


class Server(Protocol):
    """What the machine drives; ``fail`` makes a commit of the reports fail."""

    def write(self, reports: Sequence[Report]) -> list[Receipt]: ...
    def fail(self, reports: Sequence[Report]) -> None: ...
    def restart(self) -> None: ...
    def ledger(self) -> Ledger: ...
    def stored(self) -> Counter[str]: ...
    def close(self) -> None: ...


class FaultyJournal:
    """Passes everything on to a journal, except an append: it fails."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal

    def append(self, _: Sequence[bytes]) -> int:
        raise OSError("no more")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.journal, name)


class EmbeddedServer:
    """The store itself, in a directory of its own."""

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.store = DuckDBStore(Path(self.directory.name))

    def write(self, reports: Sequence[Report]) -> list[Receipt]:
        async def side_by_side() -> list[Receipt]:
            written = await asyncio.gather(*map(self.store.write, reports))
            return [each.receipt for each in written]

        return self.runner.run(side_by_side())

    def fail(self, reports: Sequence[Report]) -> None:
        journal = self.store._journal
        faulty: Any = FaultyJournal(journal)
        self.store._journal = faulty
        try:
            with pytest.raises(StoreError):
                self.store._commit(reports)
        finally:
            self.store._journal = journal

    def restart(self) -> None:
        self.runner.run(self.store.aclose())
        self.store = DuckDBStore(Path(self.directory.name))

    def ledger(self) -> Ledger:
        return self.runner.run(self.store.ledger("n"))

    def stored(self) -> Counter[str]:
        self.ledger()  # everything is in the tables then
        with tables_of(self.store).connection.cursor() as cursor:
            found = cursor.execute("SELECT peer_id FROM points_latency").fetchall()
        return Counter(peer_id for (peer_id,) in found)

    def close(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()
        self.directory.cleanup()


class DedupeMachine(RuleBasedStateMachine):
    """One node and one server; subclasses choose the server.

    ``front`` is the place up to which points were stored, lost or rejected.
    """

    server: Server

    def make_server(self) -> Server:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.server = self.make_server()
        self.epochs = self.evicted = self.gap = self.rejected = self.ahead = 0
        self.sent: list[Report] = []
        self.expected: set[str] = set()
        self.after = Predecessor()
        self.begin_epoch()

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.server.close()

    def begin_epoch(self) -> None:
        self.epochs += 1
        self.front = self.acknowledged = self.dropped = 0
        self.new_evicted = self.new_gap = 0

    @property
    def epoch(self) -> str:
        return f"{self.epochs:032x}"

    def report(self, first: int, last: int, **more: Any) -> Report:
        points = [self.point(place) for place in range(first, last + 1)]
        name = BatchName(self.epoch, first, len(points))
        return Report("n", points, NOW, name, self.after, self.dropped, **more)

    def point(self, place: int) -> MetricPoint:
        peer_id = f"{self.epoch[-4:]}/{place}"
        moment = NOW + timedelta(days=self.epochs, seconds=place)
        data = LatencyResult(peer_id, place)
        return MetricPoint(timestamp=moment, group="latency", peer_id=peer_id, data=data)

    @rule(points=st.integers(1, 9))
    def evict(self, points: int) -> None:
        self.front += points
        self.dropped += points
        self.new_evicted += points

    @rule(points=st.integers(1, 9))
    def lose_unnoticed(self, points: int) -> None:
        self.front += points
        self.new_gap += points

    @rule(
        size=st.integers(1, 6),
        tries=st.integers(1, 3),
        fails=st.booleans(),
        ahead=st.sets(st.integers(0, 5), max_size=2),
    )
    def send(self, size: int, tries: int, fails: bool, ahead: set[int]) -> None:
        """Send the next points, maybe after a failed commit, maybe several times at once."""
        fitting = tuple(index for index in sorted(ahead) if index < size)
        report = self.report(self.front + 1, self.front + size, ahead=fitting)
        if fails:
            self.server.fail([report])
        receipts = self.server.write([report] * tries)

        assert [receipt.accepted for receipt in receipts] == [size - len(fitting)] * tries
        assert {receipt.rejected for receipt in receipts} == {len(fitting)}
        assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * (tries - 1)
        self.note_accepted(report)

    @precondition(lambda self: self.acknowledged and self.acknowledged == self.front)
    @rule(before=st.integers(0, 5), size=st.integers(1, 6))
    def send_in_another_cut(self, before: int, size: int) -> None:
        """Send as after a restart of the node: from within what came, and maybe beyond it."""
        first = max(1, self.front - before)
        report = self.report(first, first + size - 1)
        (receipt,) = self.server.write([report])

        assert not receipt.clash
        assert receipt.duplicate == (first + size - 1 <= self.front)
        if not receipt.duplicate:
            self.note_accepted(report)

    def note_accepted(self, report: Report) -> None:
        assert report.name is not None
        self.sent.append(report)
        new = range(max(self.front + 1, report.name.first), report.name.last + 1)
        refused = {report.name.first + index for index in report.ahead}
        self.expected |= {self.point(place).peer_id for place in new if place not in refused}
        self.ahead += len(refused)
        self.note_losses()
        self.front = self.acknowledged = report.name.last

    def note_losses(self) -> None:
        self.evicted += self.new_evicted
        self.gap += self.new_gap
        self.new_evicted = self.new_gap = 0

    @rule(size=st.integers(1, 6), times=st.integers(1, 2))
    def reject(self, size: int, times: int) -> None:
        name = BatchName(self.epoch, self.front + 1, size)
        rejection = Report("n", (), NOW, name, self.after, self.dropped, is_rejected=True)
        for _ in range(times):
            (receipt,) = self.server.write([rejection])
            assert receipt.accepted == 0
        self.note_losses()
        self.rejected += size
        self.front = self.acknowledged = name.last
        self.dropped += size

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        again = data.draw(st.lists(st.sampled_from(self.sent), max_size=3))
        for receipt in self.server.write(again):
            assert receipt.duplicate

    @rule()
    def restart_server(self) -> None:
        self.server.restart()

    @precondition(lambda self: self.acknowledged)
    @rule()
    def restart_node(self) -> None:
        """The next epoch says where this one was left; what is missing there shows with it."""
        self.after = Predecessor(self.epoch, self.front)
        unsent = self.new_evicted + self.new_gap
        self.begin_epoch()
        self.new_gap = unsent

    @invariant()
    def each_point_is_stored_once(self) -> None:
        if hasattr(self, "server"):
            assert self.server.stored() == Counter(self.expected)

    @invariant()
    def the_ledger_counts_all_others(self) -> None:
        if not hasattr(self, "server"):
            return
        ledger = self.server.ledger()
        assert ledger.received == len(self.expected)
        assert ledger.evicted + ledger.gap == self.evicted + self.gap
        assert (ledger.rejected, ledger.ahead) == (self.rejected, self.ahead)


class PureMachine(DedupeMachine):
    def make_server(self) -> Server:
        return PureServer()


class EmbeddedMachine(DedupeMachine):
    def make_server(self) -> Server:
        return EmbeddedServer()


TestMarks = pytest.mark.slow(PureMachine.TestCase)
TestMarks.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestEmbeddedStore = pytest.mark.slow(EmbeddedMachine.TestCase)
TestEmbeddedStore.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)

"""A node and a server that fail at every step, against a model that cannot.

The node seals batches, sends them whole and in pieces, loses some before they are sent, has some
rejected, and repeats what it sent before. The server fails commits and restarts, and forgets what
was not committed. Each point is stored once, and the ledger counts all others.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from plexd.api import BatchName, LatencyResult, MetricPoint
from plexd_server.errors import StoreError
from plexd_server.store import DuckDBStore, Report
from plexd_server.store.duckdb.changeset import MarkCache, StagedReports
from plexd_server.store.marks import make_ledger
from support.points import NOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd_server.store import Ledger, Loss, Receipt
    from plexd_server.store.duckdb.journal import Journal
    from plexd_server.store.marks import Mark


class Server(Protocol):
    """What the machine drives; ``fail`` makes a commit of the reports fail."""

    def write(self, reports: Sequence[Report]) -> list[Receipt]: ...
    def fail(self, reports: Sequence[Report]) -> None: ...
    def restart(self) -> None: ...
    def ledger(self) -> Ledger: ...
    def stored(self) -> Counter[str]: ...
    def close(self) -> None: ...


class PureServer:
    """The marks and their cache, with lists for tables."""

    def __init__(self) -> None:
        self.tables: dict[str, Mark] = {}
        self.losses: list[Loss] = []
        self.points: list[MetricPoint] = []
        self.restart()

    def write(self, reports: Sequence[Report]) -> list[Receipt]:
        staged = StagedReports(self.marks)
        receipts = [staged.add(report).receipt for report in reports]
        changes = staged.changeset(0)
        for mark in changes.marks:
            assert mark.ordinal > max((known.ordinal for known in self.tables.values()), default=0)
        self.tables |= {mark.epoch: mark for mark in changes.marks}
        self.losses += [loss for _, loss in changes.losses]
        self.points += [point for report in changes.points for point in report.points]
        staged.apply()
        return receipts

    def fail(self, reports: Sequence[Report]) -> None:
        staged = StagedReports(self.marks)
        for report in reports:
            staged.add(report)
        staged.changeset(0)

    def restart(self) -> None:
        self.marks = MarkCache(self._known(), lambda _, epoch: self.tables.get(epoch))

    def ledger(self) -> Ledger:
        return make_ledger(self._known(), self.losses)

    def _known(self) -> list[Mark]:
        return sorted(self.tables.values(), key=lambda mark: mark.ordinal)

    def stored(self) -> Counter[str]:
        return Counter(point.peer_id for point in self.points)

    def close(self) -> None:
        return None


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
            return await asyncio.gather(*map(self.store.write, reports))

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
        self.store._loader.flush()
        with self.store._tables.connection.cursor() as cursor:
            found = cursor.execute("SELECT peer_id FROM points_latency").fetchall()
        return Counter(peer_id for (peer_id,) in found)

    def close(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()
        self.directory.cleanup()


@dataclass
class Batch:
    """A sealed batch, and how many of its points were accepted and rejected."""

    name: BatchName
    accepted: int = 0
    rejected: int = 0

    @property
    def done(self) -> int:
        return self.accepted + self.rejected

    def piece(self, start: int, stop: int, dropped: int) -> Report:
        points = [self.point(index) for index in range(start, stop)]
        name = replace(self.name, offset=start)
        return Report("n", points, NOW, name=name, dropped=dropped)

    def point(self, index: int) -> MetricPoint:
        peer_id = f"{self.name.epoch[-4:]}/{self.name.seq}/{index}"
        moment = NOW + timedelta(seconds=60 * self.name.seq + index)
        data = LatencyResult(peer_id, index)
        return MetricPoint(timestamp=moment, group="latency", peer_id=peer_id, data=data)


class DedupeMachine(RuleBasedStateMachine):
    """One node and one server; subclasses choose the server."""

    server: Server

    def make_server(self) -> Server:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.server = self.make_server()
        self.epochs = 0
        self.sent: list[Report] = []
        self.expected: set[str] = set()
        self.evicted = self.rejected = self.gaps = 0
        self.new_spool()
        self.seal([4, 2])  # so that every run has something to send

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.server.close()

    def new_spool(self) -> None:
        self.epochs += 1
        self.seq = 0
        self.queue: list[Batch] = []
        self.new_lost = self.new_rejected = self.vanished = 0

    @property
    def dropped(self) -> int:
        return self.new_lost + self.new_rejected

    @rule(points=st.lists(st.integers(1, 6), min_size=1, max_size=3))
    def seal(self, points: list[int]) -> None:
        for count in points:
            self.seq += 1
            self.queue.append(Batch(BatchName(f"{self.epochs:032x}", self.seq, 0, count)))

    @rule(points=st.integers(1, 9))
    def evict_before_sealing(self, points: int) -> None:
        self.new_lost += points

    def head_is_untouched(self) -> bool:
        return bool(self.queue) and not self.queue[0].done

    @precondition(head_is_untouched)
    @rule()
    def evict_head(self) -> None:
        self.new_lost += self.queue.pop(0).name.of

    @precondition(head_is_untouched)
    @rule()
    def lose_head_unnoticed(self) -> None:
        self.queue.pop(0)
        self.vanished += 1

    @precondition(lambda self: self.queue)
    @rule(size=st.integers(1, 6), tries=st.integers(1, 3), fails=st.booleans())
    def send(self, size: int, tries: int, fails: bool) -> None:
        """Send the next piece, maybe after a failed commit, maybe several times at once."""
        batch = self.queue[0]
        start, stop = batch.done, min(batch.done + size, batch.name.of)
        piece = batch.piece(start, stop, 0 if batch.accepted else self.dropped)
        if fails:
            self.server.fail([piece])
        receipts = self.server.write([piece] * tries)

        assert [receipt.accepted for receipt in receipts] == [stop - start] * tries
        assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * (tries - 1)
        self.note_accepted(batch, stop - start, piece)

    @precondition(lambda self: self.queue and self.queue[0].accepted)
    @rule(start=st.integers(0, 5), size=st.integers(1, 6))
    def send_in_another_cut(self, start: int, size: int) -> None:
        """Send as after a restart of the node: from within what came, and maybe beyond it."""
        batch = self.queue[0]
        if batch.rejected:
            return
        start = min(start, batch.accepted)
        stop = min(start + size, batch.name.of)
        piece = batch.piece(start, stop, self.reported_dropped)
        (receipt,) = self.server.write([piece])

        assert receipt.duplicate == (stop <= batch.accepted)
        self.note_accepted(batch, max(0, stop - batch.accepted), piece)

    def note_accepted(self, batch: Batch, count: int, piece: Report) -> None:
        self.sent.append(piece)
        if count and not batch.accepted:
            self.reported_dropped = piece.dropped
            self.gaps += 0 if self.new_lost else self.vanished
            self.evicted += self.new_lost
            self.new_lost = self.new_rejected = self.vanished = 0
        first = batch.done
        self.expected |= {batch.point(index).peer_id for index in range(first, first + count)}
        batch.accepted += count
        self.pop_if_done(batch)

    @precondition(lambda self: self.queue)
    @rule(size=st.integers(1, 6), times=st.integers(1, 2), guess=st.booleans())
    def reject(self, size: int, times: int, guess: bool) -> None:
        batch = self.queue[0]
        count = min(size, batch.name.of - batch.done)
        counted = batch.name.of - batch.done if guess else count
        name = replace(batch.name, offset=batch.done)
        rejection = Report("n", (), NOW, name=name, rejected=counted)
        for _ in range(times):
            (receipt,) = self.server.write([rejection])
            assert receipt.accepted == 0
        batch.rejected += count
        self.rejected += count
        self.pop_if_done(batch)

    def pop_if_done(self, batch: Batch) -> None:
        if batch.done == batch.name.of:
            self.queue.remove(batch)
            self.new_rejected += batch.rejected

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        again = data.draw(st.lists(st.sampled_from(self.sent), max_size=3))
        for receipt in self.server.write(again):
            assert receipt.duplicate

    @rule()
    def restart_server(self) -> None:
        self.server.restart()

    @precondition(lambda self: not self.queue and not self.dropped and not self.vanished)
    @rule()
    def begin_new_epoch(self) -> None:
        self.new_spool()

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
        assert ledger.evicted == self.evicted
        assert ledger.gap_batches == self.gaps
        if not any(batch.rejected for batch in self.queue):
            assert ledger.rejected == self.rejected


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

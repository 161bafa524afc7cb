"""A node and a server that fail at every turn, against a model that cannot.

The node seals batches, sends them whole and in pieces, loses some before they are sent, has some
refused, and repeats whatever it sent before. The server forgets what was not committed, fails
commits and starts anew. Each point is stored once, and the ledger tells of all others.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from plexd.api import BatchName, LatencyResult, MetricPoint
from plexd_server.errors import StoreError
from plexd_server.store import DuckDBStore, Report
from plexd_server.store.duckdb.ledger_tables import make_ledger
from plexd_server.store.duckdb.mark_cache import Draft, Marks
from support.points import NOW

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd_server.store import Ledger, Loss, Receipt
    from plexd_server.store.marks import Mark


class Server(Protocol):
    """What the machine drives."""

    def write(self, deliveries: Sequence[Report]) -> list[Receipt]: ...
    def fail(self, deliveries: Sequence[Report]) -> None: ...
    def restart(self) -> None: ...
    def ledger(self) -> Ledger: ...
    def stored(self) -> Counter[str]: ...
    def close(self) -> None: ...


class PureServer:
    """Marks and drafts over lists for tables."""

    def __init__(self) -> None:
        self.kept: dict[str, Mark] = {}
        self.losses: list[Loss] = []
        self.points: list[MetricPoint] = []
        self.restart()

    def write(self, deliveries: Sequence[Report]) -> list[Receipt]:
        draft = Draft(self.marks)
        answers = [draft.take(delivery).receipt for delivery in deliveries]
        for mark in draft.receipts():
            assert mark.ordinal > max((kept.ordinal for kept in self.kept.values()), default=0)
        self.kept |= {mark.epoch: mark for mark in draft.receipts()}
        self.losses += [loss for _, loss in draft.losses]
        self.points += [point for _, points in draft.points for point in points]
        draft.adopt()
        return answers

    def fail(self, deliveries: Sequence[Report]) -> None:
        draft = Draft(self.marks)
        for delivery in deliveries:
            draft.take(delivery)
        draft.receipts()

    def restart(self) -> None:
        known = sorted(self.kept.values(), key=lambda mark: mark.ordinal)
        self.marks = Marks(known, lambda _, epoch: self.kept.get(epoch))

    def ledger(self) -> Ledger:
        known = sorted(self.kept.values(), key=lambda mark: mark.ordinal)
        return make_ledger(known, self.losses)

    def stored(self) -> Counter[str]:
        return Counter(point.peer_id for point in self.points)

    def close(self) -> None:
        return None


class EmbeddedServer:
    """The store itself, in a directory of its own."""

    def __init__(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.runner = asyncio.Runner()
        self.store = DuckDBStore(Path(self.directory.name))

    def write(self, deliveries: Sequence[Report]) -> list[Receipt]:
        async def side_by_side() -> list[Receipt]:
            return await asyncio.gather(*map(self.store.write, deliveries))

        return self.runner.run(side_by_side())

    def fail(self, deliveries: Sequence[Report]) -> None:
        def fails(_: Sequence[bytes]) -> int:
            raise OSError("no more")

        with (
            pytest.MonkeyPatch.context() as patched,
            suppress(StoreError),  # raised unless there is nothing to keep
        ):
            patched.setattr(self.store._journal, "append", fails)
            self.store._commit(deliveries)

    def restart(self) -> None:
        self.runner.run(self.store.aclose())
        self.store = DuckDBStore(Path(self.directory.name))

    def ledger(self) -> Ledger:
        return self.runner.run(self.store.ledger("n"))

    def stored(self) -> Counter[str]:
        self.store._filler.settle()
        with self.store._tables.connection.cursor() as cursor:
            found = cursor.execute("SELECT peer_id FROM points_latency").fetchall()
        return Counter(peer_id for (peer_id,) in found)

    def close(self) -> None:
        self.runner.run(self.store.aclose())
        self.runner.close()
        self.directory.cleanup()


@dataclass
class Batch:
    """A sealed batch; ``came`` and ``refused`` are how many of its points were settled so."""

    name: BatchName
    came: int = 0
    refused: int = 0

    @property
    def settled(self) -> int:
        return self.came + self.refused

    def piece(self, start: int, stop: int, dropped: int) -> Report:
        points = [self.point(index) for index in range(start, stop)]
        name = replace(self.name, offset=start)
        return Report("n", points, NOW, name=name, dropped=dropped)

    def point(self, index: int) -> MetricPoint:
        peer_id = f"{self.name.epoch[-4:]}/{self.name.seq}/{index}"
        moment = NOW + timedelta(seconds=60 * self.name.seq + index)
        data = LatencyResult(peer_id, index)
        return MetricPoint(timestamp=moment, group="latency", peer_id=peer_id, data=data)


class DeliveryMachine(RuleBasedStateMachine):
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

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.server.close()

    def new_spool(self) -> None:
        self.epochs += 1
        self.seq = 0
        self.queue: list[Batch] = []
        self.lost_here = self.refused_here = self.silent = 0

    @property
    def dropped(self) -> int:
        return self.lost_here + self.refused_here

    @rule(points=st.lists(st.integers(1, 6), min_size=1, max_size=3))
    def seal(self, points: list[int]) -> None:
        for count in points:
            self.seq += 1
            self.queue.append(Batch(BatchName(f"{self.epochs:032x}", self.seq, 0, count)))

    @rule(points=st.integers(1, 9))
    def evict_before_sealing(self, points: int) -> None:
        self.lost_here += points

    def untouched_head(self) -> bool:
        return bool(self.queue) and not self.queue[0].settled

    @precondition(untouched_head)
    @rule()
    def evict_head(self) -> None:
        self.lost_here += self.queue.pop(0).name.of

    @precondition(untouched_head)
    @rule()
    def lose_head_silently(self) -> None:
        self.queue.pop(0)
        self.silent += 1

    @precondition(lambda self: self.queue)
    @rule(size=st.integers(1, 6), tries=st.integers(1, 3), fails=st.booleans())
    def send(self, size: int, tries: int, fails: bool) -> None:
        """The next piece, perhaps after a commit that failed, perhaps several times at once."""
        batch = self.queue[0]
        start, stop = batch.settled, min(batch.settled + size, batch.name.of)
        piece = batch.piece(start, stop, 0 if batch.came else self.dropped)
        if fails:
            self.server.fail([piece])
        receipts = self.server.write([piece] * tries)

        assert [receipt.accepted for receipt in receipts] == [stop - start] * tries
        assert sorted(receipt.duplicate for receipt in receipts) == [False] + [True] * (tries - 1)
        self.note_accepted(batch, stop - start, piece)

    @precondition(lambda self: self.queue and self.queue[0].came)
    @rule(start=st.integers(0, 5), size=st.integers(1, 6))
    def send_in_another_cut(self, start: int, size: int) -> None:
        """After a restart of the node: from anywhere before what came, and perhaps beyond it."""
        batch = self.queue[0]
        if batch.refused:
            return
        start = min(start, batch.came)
        stop = min(start + size, batch.name.of)
        piece = batch.piece(start, stop, self.told)
        (receipt,) = self.server.write([piece])

        assert receipt.duplicate == (stop <= batch.came)
        self.note_accepted(batch, max(0, stop - batch.came), piece)

    def note_accepted(self, batch: Batch, count: int, piece: Report) -> None:
        self.sent.append(piece)
        if count and not batch.came:
            self.told = piece.dropped
            self.gaps += 0 if self.lost_here else self.silent
            self.evicted += self.lost_here
            self.lost_here = self.refused_here = self.silent = 0
        first = batch.settled
        self.expected |= {batch.point(index).peer_id for index in range(first, first + count)}
        batch.came += count
        self.pop_if_settled(batch)

    @precondition(lambda self: self.queue)
    @rule(size=st.integers(1, 6), times=st.integers(1, 2), guess=st.booleans())
    def refuse(self, size: int, times: int, guess: bool) -> None:
        batch = self.queue[0]
        count = min(size, batch.name.of - batch.settled)
        noted = batch.name.of - batch.settled if guess else count
        name = replace(batch.name, offset=batch.settled)
        note = Report("n", (), NOW, name=name, rejected=noted)
        for _ in range(times):
            (receipt,) = self.server.write([note])
            assert receipt.accepted == 0
        batch.refused += count
        self.rejected += count
        self.pop_if_settled(batch)

    def pop_if_settled(self, batch: Batch) -> None:
        if batch.settled == batch.name.of:
            self.queue.remove(batch)
            self.refused_here += batch.refused

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        again = data.draw(st.lists(st.sampled_from(self.sent), max_size=3))
        for receipt in self.server.write(again):
            assert receipt.duplicate

    @rule()
    def restart_server(self) -> None:
        self.server.restart()

    @precondition(lambda self: not self.queue and not self.dropped and not self.silent)
    @rule()
    def begin_new_epoch(self) -> None:
        self.new_spool()

    @invariant()
    def each_point_is_stored_once(self) -> None:
        if hasattr(self, "server"):
            assert self.server.stored() == Counter(self.expected)

    @invariant()
    def the_ledger_tells_of_all_others(self) -> None:
        if not hasattr(self, "server"):
            return
        ledger = self.server.ledger()
        assert ledger.received == len(self.expected)
        assert ledger.evicted == self.evicted
        assert ledger.gap_batches == self.gaps
        if not any(batch.refused for batch in self.queue):
            assert ledger.rejected == self.rejected


class PureMachine(DeliveryMachine):
    def make_server(self) -> Server:
        return PureServer()


class EmbeddedMachine(DeliveryMachine):
    def make_server(self) -> Server:
        return EmbeddedServer()


TestMarks = pytest.mark.slow(PureMachine.TestCase)
TestMarks.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestEmbeddedStore = pytest.mark.slow(EmbeddedMachine.TestCase)
TestEmbeddedStore.settings = settings(max_examples=8, stateful_step_count=20, deadline=None)

"""Whatever life a machine leads, against an account of its own.

Nodes append, send, evict, are killed between any two steps, copied and put back; the server is put
back to a backup, its answers are lost, and a proxy repeats what it saw. The nodes are reference
spools, or the agent's own log of points; the server is the real marks. After every step:

- no point is stored twice;
- a point that a node gives up because of an answer is stored, or counted in the ledger;
- nothing that a node still holds, or lost, was measured before ``complete_until`` unless the ledger
  has it.

What the design does not promise is left out where it says so. ``PLEXD_LIVES`` sets another number
of histories, for a longer search.
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from plexd_server.store import Report
from plexd_server.store.marks import open_marks
from support.log_spool import LogSpool
from support.points import NOW
from support.pure_server import PureServer
from support.reference_spool import ReferenceSpool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plexd.api import MetricBatch, Receipt
    from plexd_server.store import Ledger

# `make lives` tries far more.
_EXAMPLES = int(os.environ.get("PLEXD_LIVES", "30"))
_STEPS = 60


@dataclass
class Account:
    """The server, and what only an onlooker knows of it; put back and copied as a whole.

    ``jumped`` are names that the server counted as missing, ``rejected`` points that it refused,
    ``movers`` the timeline that moved each epoch last.
    """

    server: PureServer = field(default_factory=PureServer)
    jumped: set[tuple[str, int]] = field(default_factory=set)
    rejected: set[str] = field(default_factory=set)
    movers: dict[str, int] = field(default_factory=dict)

    def write(self, report: Report, timeline: int) -> Receipt:
        assert report.name is not None
        before = self.server.tables.get(report.name.epoch)
        (receipt,) = self.server.write([report])
        after = self.server.tables.get(report.name.epoch)
        if after is not None and after.upto > (upto := before.upto if before else 0):
            self.movers[report.name.epoch] = timeline
            missing = range(upto + 1, report.name.first)
            self.jumped |= {(report.name.epoch, place) for place in missing}
            self.rejected |= {report.points[index].peer_id for index in report.ahead}
            if report.is_rejected:
                places = range(upto + 1, report.name.last + 1)
                self.jumped |= {(report.name.epoch, place) for place in places}
        return receipt


@dataclass
class Life:
    """A machine: its disk, and the history and the timelines that led to it.

    ``in_flight`` is in the process's memory: a batch that was sent, and the answer to it.
    ``unnoticed`` are epochs that another timeline has used as well.
    """

    spool: ReferenceSpool | LogSpool
    timelines: list[int]
    history: dict[str, datetime] = field(default_factory=dict)
    in_flight: tuple[MetricBatch, Receipt] | None = None
    unnoticed: set[str] = field(default_factory=set)

    def has_used(self, epoch: str) -> bool:
        return epoch in {self.spool.life, *(each.epoch for each in self.spool.epochs)}

    @property
    def timeline(self) -> int:
        return self.timelines[-1]


class LivesMachine(RuleBasedStateMachine):
    """Lives of one node, and one server."""

    @initialize(counts_refused=st.booleans())
    def begin(self, counts_refused: bool) -> None:
        self.account = Account()
        self.backup = copy.deepcopy(self.account)
        self.clock = NOW
        self.epochs = self.timelines = self.points = 0
        self.is_plain = True
        self.is_unnoticed = False
        self.seen: list[tuple[Report, int]] = []
        spool = self.new_spool(counts_refused=counts_refused)
        self.lives = [Life(spool, [self.new_timeline()])]
        self.snapshots: list[Life] = []
        self.take_snapshot(0)

    def new_spool(self, *, counts_refused: bool) -> ReferenceSpool | LogSpool:
        return ReferenceSpool(self.new_epoch(), counts_refused)

    def new_epoch(self) -> str:
        self.epochs += 1
        return f"{self.epochs * 0x9E3779B97F4A7C15 % 2**128:032x}"

    def new_timeline(self) -> int:
        self.timelines += 1
        return self.timelines

    def life(self, number: int) -> Life:
        return self.lives[number % len(self.lives)]

    @rule(number=st.integers(0, 2), points=st.integers(1, 4))
    def collect(self, number: int, points: int) -> None:
        """Append one collection; its points have one stamp."""
        life = self.life(number)
        self.clock += timedelta(seconds=1)
        uids = [f"p{self.points + i}" for i in range(points)]
        self.points += points
        life.spool.append(self.clock, uids)
        life.history |= dict.fromkeys(uids, self.clock)

    def report(self, batch: MetricBatch, ahead: Sequence[int] = ()) -> Report:
        fitting = tuple(index for index in ahead if index < len(batch))
        return Report("n", batch, self.clock, batch.name, batch.after, batch.dropped, fitting)

    @rule(
        number=st.integers(0, 2),
        limit=st.integers(1, 6),
        ahead=st.sets(st.integers(0, 5), max_size=1) | st.just(frozenset[int]()),
        commit_fails=st.booleans(),
    )
    def send(self, number: int, limit: int, ahead: set[int], commit_fails: bool) -> None:
        """Send the head; the answer is under way, and may be lost."""
        life = self.life(number)
        batch = life.spool.head(limit)
        if batch is None:
            return
        report = self.report(batch, sorted(ahead))
        if commit_fails:
            self.account.server.fail([report])
        self.is_plain &= life.in_flight is None
        self.seen.append((report, life.timeline))
        receipt = self.account.write(report, life.timeline)
        if not receipt.clash:
            self.check_answer(batch)
        life.in_flight = (batch, receipt)

    @rule(number=st.integers(0, 2))
    def answer_arrives(self, number: int) -> None:
        life = self.life(number)
        if life.in_flight is None:
            return
        batch, receipt = life.in_flight
        life.in_flight = None
        assert batch.name is not None
        life.spool.answer(batch.name, receipt)
        if receipt.clash:
            self.is_plain = False
            life.unnoticed |= {each.epoch for each in life.spool.epochs if each.continues}
            life.spool.life = self.new_epoch()

    @rule(number=st.integers(0, 2), limit=st.integers(1, 6))
    def deliver(self, number: int, limit: int) -> None:
        self.send(number, limit, set(), commit_fails=False)
        self.answer_arrives(number)

    def check_answer(self, batch: MetricBatch) -> None:
        """Check that the node may forget the points."""
        assert batch.name is not None
        for place, point in enumerate(batch, batch.name.first):
            is_accounted = self.is_accounted(point.peer_id, batch.name.epoch, place)
            assert is_accounted, f"{point.peer_id} is lost unreported"

    def is_accounted(self, uid: str, epoch: str, place: int) -> bool:
        is_counted = uid in self.account.rejected or (epoch, place) in self.account.jumped
        return is_counted or bool(self.account.server.stored()[uid])

    @rule(number=st.integers(0, 2), limit=st.integers(1, 6), repeats=st.integers(1, 2))
    def refuse(self, number: int, limit: int, repeats: int) -> None:
        """The batch cannot be read: it is rejected whole, and the node gives it up.

        What cannot be read cannot be compared, so no clash is found.
        """
        life = self.life(number)
        batch = life.spool.head(limit)
        if batch is None or life.in_flight:
            return
        assert batch.name is not None
        if batch.name.epoch in life.unnoticed:
            return
        rejection = Report(
            "n", (), self.clock, batch.name, batch.after, batch.dropped, is_rejected=True
        )
        for _ in range(repeats):
            self.account.write(rejection, life.timeline)
        life.spool.set_aside(batch.name)

    @rule(number=st.integers(0, 2), count=st.integers(1, 5), index=st.integers(0, 3))
    def lose(self, number: int, count: int, index: int) -> None:
        """Points are evicted from the old end, or damaged in the middle.

        Of points under a name that another timeline used, the server cannot know that they are
        missing: it has others.
        """
        life = self.life(number)
        if any(row.epoch in life.unnoticed for row in life.spool.rows):
            return
        if life.in_flight:
            self.is_plain = False  # what was under way may be stored, and counted as lost as well
        life.spool.drop(index, count)

    @rule(number=st.integers(0, 2))
    def restart(self, number: int) -> None:
        """The process ends, by a kill as well; an answer under way is lost."""
        life = self.life(number)
        self.is_plain &= life.in_flight is None
        life.in_flight = None
        life.spool.life = self.new_epoch()

    @rule(number=st.integers(0, 2))
    def restart_server(self, number: int) -> None:
        del number
        self.account.server.restart()

    @rule(number=st.integers(0, 2), is_running=st.booleans())
    def copy_machine(self, number: int, is_running: bool) -> None:
        """A second machine starts on a copy of the data directory, or of the memory.

        A copy of the memory notices that its clocks stepped; what it appends gets another epoch.
        """
        if len(self.lives) == 3:
            return
        self.is_plain = False
        life = self.life(number)
        twin = copy.deepcopy(life)
        twin.spool.life = self.new_epoch()
        if not is_running:
            twin.in_flight = None
        life.timelines.append(self.new_timeline())
        twin.timelines.append(self.new_timeline())
        self.lives.append(twin)

    @rule(number=st.integers(0, 2))
    def take_snapshot(self, number: int) -> None:
        life = self.life(number)
        self.snapshots.append(copy.deepcopy(life))
        life.timelines.append(self.new_timeline())

    @rule(number=st.integers(0, 2), snapshot=st.integers(0, 9), is_noticed=st.booleans())
    def put_back(self, number: int, snapshot: int, is_noticed: bool) -> None:
        """A machine goes on from a snapshot of its disk or of its memory.

        That is noticed by the clocks, or is not: then it goes on under the same epoch. Two of one
        memory that nothing noticed, side by side, are not promised anything: one of them ends.
        """
        self.is_plain = False
        found = copy.deepcopy(self.snapshots[snapshot % len(self.snapshots)])
        found.in_flight = None
        if is_noticed:
            found.spool.life = self.new_epoch()
        else:
            self.forget_others_of(found.spool.life)
            found.unnoticed.add(found.spool.life)
            self.snapshots.append(copy.deepcopy(found))
            self.is_unnoticed = True
        found.timelines.append(self.new_timeline())
        self.lives[number % 3 : number % 3 + 1] = [found]

    def forget_others_of(self, epoch: str) -> None:
        self.lives = [life for life in self.lives if not life.has_used(epoch)]
        self.snapshots = [life for life in self.snapshots if not life.has_used(epoch)]

    @rule()
    def back_up_server(self) -> None:
        self.backup = copy.deepcopy(self.account)

    @precondition(lambda self: not self.is_unnoticed)
    @rule()
    def put_server_back(self) -> None:
        """Not promised together with the snapshot of a memory that nothing noticed.

        The server forgets which of two points that were sent under one name it has.
        """
        self.is_plain = False
        self.account = copy.deepcopy(self.backup)

    @precondition(lambda self: self.seen)
    @rule(index=st.integers(0, 30))
    def repeat(self, index: int) -> None:
        """A proxy sends a report again that it saw."""
        report, timeline = self.seen[index % len(self.seen)]
        self.account.write(report, timeline)

    @invariant()
    def nothing_is_stored_twice(self) -> None:
        if hasattr(self, "account"):
            stored = self.account.server.stored()
            assert all(count == 1 for count in stored.values()), stored

    @invariant()
    def nothing_before_complete_until_is_missing_unreported(self) -> None:
        if not hasattr(self, "account"):
            return
        ledger = self.account.server.ledger()
        for life in self.lives:
            if ledger.complete_until is not None and self.has_spoken(life):
                self.check_claim(life, ledger, ledger.complete_until)

    def has_spoken(self, life: Life) -> bool:
        """Whether the server knows of this timeline; of a twin that was silent it cannot know."""
        return any(
            self.account.movers.get(mark.epoch) in life.timelines
            for mark in open_marks(self.account.server.of_node())
        )

    def check_claim(self, life: Life, ledger: Ledger, until: datetime) -> None:
        stored = self.account.server.stored()
        for row in life.spool.rows:
            is_known = row.stamp >= until or self.is_accounted(row.uid, row.epoch, row.place)
            assert is_known, f"{row} is still on the disk"
        if any(loss.detail for loss in ledger.losses):
            return  # a loss of unknown size
        missing = sum(stamp < until and not stored[uid] for uid, stamp in life.history.items())
        assert missing <= lost(ledger), (missing, ledger)

    def teardown(self) -> None:
        if hasattr(self, "account"):
            self.drain()

    def drain(self) -> None:
        """Deliver everything, and compare."""
        for number, life in enumerate(self.lives):
            self.restart(number)
            self.collect(number, 1)
            while life.spool.rows:
                self.deliver(number, 5)
        self.nothing_is_stored_twice()
        self.nothing_before_complete_until_is_missing_unreported()
        ledger = self.account.server.ledger()
        if self.is_plain:
            (life,) = self.lives
            assert not any(loss.detail for loss in ledger.losses)
            assert len(life.history) - len(self.account.server.points) == lost(ledger)
            assert ledger.complete_until == self.clock


def lost(ledger: Ledger) -> int:
    return ledger.evicted + ledger.rejected + ledger.gap + ledger.ahead


class LogLivesMachine(LivesMachine):
    """The same with the log of points that the agent has."""

    def new_spool(self, *, counts_refused: bool) -> LogSpool:
        del counts_refused  # it always does
        return LogSpool(self.new_epoch())


_TIMEOUT = pytest.mark.timeout(200 + 3 * _EXAMPLES)
TestLives = pytest.mark.slow(_TIMEOUT(LivesMachine.TestCase))
TestLives.settings = settings(max_examples=_EXAMPLES, stateful_step_count=_STEPS, deadline=None)
TestLogLives = pytest.mark.slow(_TIMEOUT(LogLivesMachine.TestCase))
TestLogLives.settings = TestLives.settings


class History:
    """A history that once had an end it must not have, step by step."""

    def __init__(self, machine: LivesMachine, *, counts_refused: bool) -> None:
        self.machine = machine
        self.machine.begin(counts_refused=counts_refused)

    def collect(self, number: int, points: int) -> None:
        self.machine.collect(number=number, points=points)

    def deliver(self, number: int, limit: int) -> None:
        self.machine.deliver(number=number, limit=limit)

    def refuse(self, number: int, limit: int) -> None:
        self.machine.refuse(number=number, limit=limit, repeats=2)

    def end(self) -> Ledger:
        self.machine.nothing_before_complete_until_is_missing_unreported()
        self.machine.drain()
        return self.machine.account.server.ledger()


@pytest.fixture(params=["refused apart", "refused is dropped", "the agent's own"])
def history(request: pytest.FixtureRequest) -> History:
    if request.param == "the agent's own":
        return History(LogLivesMachine(), counts_refused=True)
    return History(LivesMachine(), counts_refused=request.param == "refused is dropped")


def test_the_lost_end_of_an_epoch_is_one_loss_with_its_dropped(history: History) -> None:
    history.collect(0, 4)
    history.machine.lose(number=0, count=1, index=3)

    assert lost(history.end()) == 1


def test_an_epoch_that_was_refused_whole_is_no_spool_begun_anew(history: History) -> None:
    history.collect(0, 2)
    history.refuse(0, 6)

    ledger = history.end()
    assert [loss.reason for loss in ledger.losses] == ["rejected"]


def test_a_memory_put_back_after_a_rejection_is_a_clash(history: History) -> None:
    history.collect(0, 7)
    history.deliver(0, 6)
    history.refuse(0, 6)
    history.machine.put_back(number=0, snapshot=0, is_noticed=False)
    history.collect(0, 1)

    ledger = history.end()
    assert (ledger.received, ledger.rejected, ledger.gap) == (8, 1, 0)


def test_a_branch_does_not_inherit_what_its_twin_completed(history: History) -> None:
    history.collect(0, 4)
    history.refuse(0, 5)
    history.machine.copy_machine(number=0, is_running=True)
    history.collect(1, 3)
    history.collect(0, 4)
    history.deliver(0, 3)
    history.refuse(1, 2)

    ledger = history.end()
    assert (ledger.received, ledger.rejected) == (7, 6)


def test_what_is_damaged_while_under_way_hides_no_later_damage(history: History) -> None:
    history.collect(0, 7)
    history.machine.send(number=0, limit=1, ahead=set(), commit_fails=False)
    history.machine.put_server_back()
    history.machine.lose(number=0, count=5, index=1)
    history.machine.answer_arrives(number=0)
    history.machine.restart(number=0)
    history.collect(0, 1)
    history.deliver(0, 1)
    history.machine.lose(number=0, count=1, index=1)
    history.deliver(0, 1)

    assert lost(history.end()) >= 6

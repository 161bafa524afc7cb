"""The feed, over a scripted store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from plexd.api import BatchName, Receipt
from plexd.clock import SystemClock
from plexd.metrics.testing import ManualClock, system_point
from plexd_server.errors import RegistryUnavailable, StoreError
from plexd_server.mesh import LiveMesh, ObservedStore, feeding
from plexd_server.mesh.moment import Moment
from plexd_server.registry import Node, Registry
from plexd_server.store import Ledger, Loss, Report, Series, StoredPoint, Written
from support.answers import fleet_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from plexd_server.mesh.feed import NodeLister
    from plexd_server.mesh.fleet import FleetAnswer
    from plexd_server.store import SeriesQuery

NOW = datetime(2026, 2, 12, 10, 30, tzinfo=UTC)


class ScriptedStore:
    """Answers what it was given, and notes whose ledger was read."""

    def __init__(self, points: list[StoredPoint], *, fails: bool = False) -> None:
        self.points = points
        self.losses = [Loss(reason="evicted", since=None, until=NOW, noticed_at=NOW, points=7)]
        self.asked: list[str] = []
        self.was_asked = asyncio.Event()
        self.stores = True
        self.machines: tuple[str, ...] = ()
        self.fails = fails

    async def write(self, report: Report) -> Written:
        if not self.stores:
            return Written(Receipt(accepted=1, duplicate=True))
        is_notable = bool(report.dropped or report.is_rejected)
        return Written(Receipt(accepted=1), report.points[:1], is_notable)

    async def ledger(self, node_id: str) -> Ledger:
        self.asked.append(node_id)
        self.was_asked.set()
        if self.fails:
            raise StoreError("no")
        return Ledger(losses=self.losses, machines=self.machines)

    async def latest(self, node_id: str) -> list[StoredPoint]:
        if self.fails:
            self.was_asked.set()
            raise StoreError(f"{node_id} cannot be read")
        return self.points

    async def series(self, query: SeriesQuery) -> Series:
        values: dict[str, list[float | None]] = {query.fields[0]: [12.0, None]}
        return Series([NOW, NOW + timedelta(minutes=1)], values, values, values)

    async def fleet(self) -> list[object]:
        return []

    async def check(self) -> None: ...

    async def aclose(self) -> None: ...


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(tmp_path, clock=SystemClock())
    made.create_node("n1")
    yield made
    made.close()


def observed(
    store: ScriptedStore, lister: NodeLister | None = None
) -> tuple[ObservedStore, LiveMesh]:
    live = LiveMesh()
    return ObservedStore(store, live, lister or ScriptedLister()), live  # type: ignore[arg-type]


def report(place: int, **more: Any) -> Report:
    name = BatchName("0" * 32, place, 2)
    return Report("n1", [system_point(NOW)] * 2, NOW, name, **more)


async def test_the_live_mesh_observes_only_what_was_stored() -> None:
    store = ScriptedStore([])
    observed_store, live = observed(store)

    await observed_store.write(report(1))  # of which one point is stored
    store.stores = False
    await observed_store.write(report(1))

    assert live.waiting == 1


@pytest.mark.parametrize(
    ("reports", "suspected"),
    [
        ([report(1), report(3)], []),
        ([report(1, dropped=4)], ["n1"]),
        ([report(1), report(3, dropped=4), report(5, is_rejected=True)], ["n1"]),
    ],
)
async def test_a_report_with_something_for_the_ledger_makes_its_node_a_suspect_once(
    reports: list[Report], suspected: list[str]
) -> None:
    observed_store, _ = observed(ScriptedStore([]))
    for one in reports:
        await observed_store.write(one)

    assert observed_store.suspects() == suspected
    assert observed_store.suspects() == []


async def test_the_live_mesh_is_filled_from_the_store_and_its_queue_is_drained(
    registry: Registry,
) -> None:
    clock = ManualClock(NOW)
    stored = system_point(NOW)
    store = ScriptedStore(
        [StoredPoint(timestamp=NOW, received_at=NOW, group="system", data=stored.data)]
    )
    observed_store, live = observed(store, registry)

    async with feeding(observed_store, live, clock):
        await store.was_asked.wait()
        await clock.advance(0.1)
        assert live.nodes["n1"].losses
        await observed_store.write(report(1, dropped=3))
        assert live.waiting == 1
        await clock.advance(2.5)
        assert live.waiting == 0

    assert live.nodes["n1"].row.system is not None
    assert live.nodes["n1"].row.history[0][1] == 12.0
    assert store.asked == ["n1", "n1"]


def alerts_of(live: LiveMesh) -> list[str]:
    return [alert.text for alert in fleet_of(live).alerts]


def fleet_of(live: LiveMesh) -> FleetAnswer:
    return fleet_at(live, Moment(NOW.timestamp(), 0.0))


async def test_a_node_whose_first_report_is_refused_has_its_alert(registry: Registry) -> None:
    clock = ManualClock(NOW)
    store = ScriptedStore([])
    store.losses = []
    observed_store, live = observed(store, registry)

    async with feeding(observed_store, live, clock), asyncio.timeout(10):
        await store.was_asked.wait()
        store.losses = [Loss(reason="rejected", since=None, until=NOW, noticed_at=NOW, points=3)]
        name = BatchName("0" * 32, 1, 3)
        await observed_store.write(Report("n1", [], NOW, name, is_rejected=True))
        await clock.advance(2.5)

    assert alerts_of(live) == ["3 points lost within 24 h: as this server refused them"]


async def test_two_machines_under_one_identity_are_an_alert_with_both_addresses(
    registry: Registry,
) -> None:
    store = ScriptedStore([])
    store.losses, store.machines = [], ("192.0.2.2", "192.0.2.1")
    observed_store, live = observed(store, registry)

    async with feeding(observed_store, live, ManualClock(NOW)), asyncio.timeout(10):
        await store.was_asked.wait()

    assert alerts_of(live) == [
        "2 machines report as this node, from 192.0.2.1 and 192.0.2.2: was it copied?"
    ]


async def test_after_a_restart_a_node_without_a_stored_point_has_its_alert(
    registry: Registry,
) -> None:
    store = ScriptedStore([])
    observed_store, live = observed(store, registry)
    clock = ManualClock(NOW)

    async with feeding(observed_store, live, clock), asyncio.timeout(10):
        await store.was_asked.wait()

    assert alerts_of(live) == ["7 points lost within 24 h: on the node"]


async def test_a_new_node_joins_the_live_mesh_and_a_revoked_or_removed_one_leaves_it(
    registry: Registry,
) -> None:
    clock = ManualClock(NOW)
    observed_store, live = observed(ScriptedStore([]), registry)
    registry.create_node("n2")
    registry.create_node("n3")

    async with feeding(observed_store, live, clock), asyncio.timeout(10):
        assert list(live.nodes) == ["n1", "n2", "n3"]
        registry.create_node("n4")
        registry.revoke_node("n2")
        registry.remove_node("n3")
        while len(live.nodes) != 2:
            await clock.advance(2.5)

    assert [node.node_id for node in fleet_of(live).nodes] == list(live.nodes) == ["n1", "n4"]
    assert live.roster.revoked >= {"n2"}


class ScriptedLister:
    """Lists what it was given, and calls ``meanwhile`` first."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        self.listed = [Node("n1", "", NOW)]
        self.fails = False
        self._meanwhile = meanwhile

    def nodes(self, *, revoked: bool = False) -> list[Node]:
        assert revoked
        self._meanwhile()
        if self.fails:
            raise RegistryUnavailable("no")
        return self.listed


async def test_a_node_that_enrols_and_reports_while_nodes_are_listed_is_kept() -> None:
    def enrol_and_report() -> None:
        live.observe(Report("n2", [system_point(NOW)], NOW))
        live.drain()

    observed_store, live = observed(ScriptedStore([]), ScriptedLister(enrol_and_report))
    async with feeding(observed_store, live, ManualClock(NOW)):
        pass

    assert "n2" in live.nodes


async def test_a_node_is_on_the_roster_once_its_first_report_is_answered() -> None:
    lister = ScriptedLister()
    observed_store, live = observed(ScriptedStore([]), lister)
    async with feeding(observed_store, live, ManualClock(NOW)):
        lister.listed = [Node("n1", "", NOW), Node("n2", "", NOW)]
        await observed_store.write(Report("n2", [system_point(NOW)], NOW))

        assert [node.node_id for node in live.roster.nodes] == ["n1", "n2"]


async def test_a_roster_that_is_the_same_is_not_used_again() -> None:
    """It may be long, and to look at each node of it would hold the loop."""
    observed_store, live = observed(ScriptedStore([]))
    await observed_store.update_roster()
    first, snapshot = live.roster, live.snapshot(live.now())
    await observed_store.update_roster()

    assert live.roster is first
    assert live.snapshot(live.now()) is snapshot


async def test_a_node_is_forgotten_once_however_many_update_the_roster() -> None:
    lister = ScriptedLister()
    observed_store, live = observed(ScriptedStore([]), lister)
    await observed_store.update_roster()
    lister.listed = []
    await asyncio.gather(*(observed_store.update_roster() for _ in range(3)))

    assert live.nodes == {}


async def test_while_the_registry_cannot_be_read_the_last_nodes_are_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, lister = ManualClock(NOW), ScriptedLister()
    observed_store, live = observed(ScriptedStore([]), lister)

    async with feeding(observed_store, live, clock), asyncio.timeout(10):
        lister.fails = True
        while "nodes not listed" not in caplog.text:
            await clock.advance(2.5)
        assert list(live.nodes) == ["n1"]
        lister.fails, lister.listed = False, [Node("n2", "", NOW)]
        while list(live.nodes) != ["n2"]:
            await clock.advance(2.5)


async def test_a_store_that_fails_leaves_the_live_mesh_empty_and_the_server_running(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    clock = ManualClock(NOW)
    store = ScriptedStore([], fails=True)
    observed_store, live = observed(store, registry)

    async with feeding(observed_store, live, clock):
        await store.was_asked.wait()
        await observed_store.write(report(1, dropped=1))
        await clock.advance(2.5)

    assert "mesh not recalled" in caplog.text
    assert "losses not looked up" in caplog.text
    assert live.nodes["n1"].row.arrivals


async def test_a_node_that_cannot_be_read_keeps_no_other_from_being_recalled(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    class PartlyReadable(ScriptedStore):
        async def latest(self, node_id: str) -> list[StoredPoint]:
            if node_id == "n1":
                raise StoreError("no")
            return await super().latest(node_id)

    registry.create_node("n2")
    data = system_point(NOW).data
    point = StoredPoint(timestamp=NOW, received_at=NOW, group="system", data=data)
    store = PartlyReadable([point])
    observed_store, live = observed(store, registry)

    async with feeding(observed_store, live, ManualClock(NOW)), asyncio.timeout(10):
        await store.was_asked.wait()

    assert live.nodes["n2"].row.arrivals
    assert caplog.text.count("mesh not recalled") == 1
    assert not live.is_recalled


async def test_losses_that_could_not_be_looked_up_are_looked_up_later(registry: Registry) -> None:
    clock = ManualClock(NOW)
    store = ScriptedStore([])
    observed_store, live = observed(store, registry)

    async with feeding(observed_store, live, clock), asyncio.timeout(10):
        await store.was_asked.wait()
        live.set_losses("n1", [])
        store.fails = True
        await observed_store.write(report(1, dropped=7))
        await clock.advance(2.5)
        assert alerts_of(live) == []
        store.fails = False
        await clock.advance(2.5)

    assert alerts_of(live) == ["7 points lost within 24 h: on the node"]

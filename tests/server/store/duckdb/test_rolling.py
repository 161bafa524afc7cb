"""Rollups are made in pieces, survive a kill, follow late points, and outlive their points."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import duckdb
import msgspec
import pytest

from plexd.api import MetricPoint, TunnelStats
from plexd.clock import SystemClock
from plexd_server.fault_log import FaultLog
from plexd_server.store.duckdb import rolling, rollup_order
from plexd_server.store.duckdb.rollups import LEVELS, create_statements
from plexd_server.store.duckdb.tables import Tables
from support.points import NOW, TUNNEL
from support.rollups import Pair, asked, assert_same

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

BASE: Final = NOW.replace(minute=0)
HOURS: Final = 6


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


def at(seconds: float) -> datetime:
    return BASE + timedelta(seconds=seconds)


def reading(seconds: float) -> tuple[datetime, MetricPoint]:
    """What arrives a minute after it was measured."""
    assert isinstance(TUNNEL.data, TunnelStats)
    data = msgspec.structs.replace(TUNNEL.data, peer_id="p", rx_bytes=int(seconds * seconds))
    point = MetricPoint(timestamp=at(seconds), group="tunnel", peer_id="p", data=data)
    return at(seconds + 60), point


def assert_agree(pair: Pair, step: int = 3600, *, rolled: Tables | None = None) -> None:
    span = (at(0), at(HOURS * 3600), step)
    assert_same(asked(rolled or pair.rolled, "tunnel", *span), asked(pair.plain, "tunnel", *span))


def rows(tables: Tables) -> list[int]:
    """How many rollups each level has."""
    return [
        tables.connection.execute(f"SELECT count(*) FROM {level.table('tunnel')}").fetchall()[0][0]
        for level in LEVELS
    ]


def opened(path: Path) -> Tables:
    return Tables(path, "128MB", reading=FaultLog("test", SystemClock()))


def test_the_newest_minutes_wait_for_the_reports_of_others(pair: Pair) -> None:
    pair.write([reading(second) for second in range(0, 900, 15)])
    pair.roll()

    assert rows(pair.rolled) == [2, 0]
    assert_agree(pair, 300)


def test_an_hour_is_rolled_up_when_it_is_over(pair: Pair) -> None:
    pair.write([reading(second) for second in range(0, 2 * 3600, 60)])
    pair.roll()

    assert rows(pair.rolled) == [23, 1]
    assert_agree(pair)


def test_a_file_of_release_0_1_0_is_filled_in_pieces_also_if_each_is_the_last_of_a_process(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "MOST_ROWS", 72)
    pair.write([reading(second) for second in range(0, HOURS * 3600, 60)])
    pair.close()
    path = tmp_path / "a.duckdb"
    with duckdb.connect(path) as connection:
        made = [statement.split("(")[0].split() for statement in create_statements()]
        for words in made:
            if words[0] == "CREATE":
                connection.execute(f"DROP TABLE {words[2]}")
        connection.execute(
            "DELETE FROM meta WHERE key IN ('rolled', 'gone') OR key LIKE 'ordered%'"
        )
        connection.execute("UPDATE meta SET value = '1' WHERE key = 'schema_version'")
    pair.plain = opened(tmp_path / "b.duckdb")
    has_more, pieces, found = True, 0, [0, 0]
    while has_more:
        tables = opened(path)
        assert_agree(pair, rolled=tables)
        has_more = tables.roll()
        pieces += 1
        found = rows(tables)
        tables.close()
    pair.rolled = opened(path)

    assert pieces > HOURS
    assert found == [HOURS * 12 - 1, HOURS - 1]
    assert_agree(pair)


def test_a_late_point_shows_at_once_and_is_rolled_up_once(pair: Pair) -> None:
    pair.write([reading(second) for second in range(0, HOURS * 3600, 60) if second // 900 != 3])
    pair.roll()
    before = rows(pair.rolled)
    pair.write([reading(second) for second in range(2700, 3600, 60)])
    assert_agree(pair)
    for _ in range(2):
        pair.roll()
        assert rows(pair.rolled) == [before[0] + 3, before[1]]
        assert_agree(pair)
        assert_agree(pair, 300)


def test_points_expire_only_when_they_are_rolled_up_and_rollups_when_told_so(pair: Pair) -> None:
    pair.write([reading(second) for second in range(0, HOURS * 3600, 60)])
    pair.expire(at(3 * 3600 + 100))

    assert_agree(pair)
    assert_agree(pair, 300)
    pair.rolled.expire_rollups(at(2 * 3600))
    times = asked(pair.rolled, "tunnel", at(0), at(HOURS * 3600), 3600).times
    assert times == [at(hour * 3600) for hour in range(2, HOURS)]


def test_a_late_point_of_a_time_that_is_gone_changes_nothing(pair: Pair) -> None:
    pair.write([reading(second) for second in range(0, HOURS * 3600, 60)])
    pair.expire(at(3 * 3600 + 100))
    before = asked(pair.rolled, "tunnel", at(0), at(3 * 3600), 300)
    pair.write([reading(3605.0)])
    pair.roll()

    assert asked(pair.rolled, "tunnel", at(0), at(3 * 3600), 300) == before


def test_where_points_are_gone_a_fine_step_has_what_there_is(pair: Pair) -> None:
    pair.write([reading(second) for second in range(0, 7200, 60)])
    pair.expire(at(3600))

    times = asked(pair.rolled, "tunnel", at(3000), at(4200), 60).times
    assert times == [at(3000), at(3300), *(at(second) for second in range(3600, 4200, 60))]


def test_a_clock_of_the_server_that_is_years_ahead_rolls_nothing_up_early(pair: Pair) -> None:
    arrived, point = reading(0)
    pair.write([(arrived + timedelta(days=3000), point)])
    pair.roll()
    pair.write([reading(second) for second in range(15, 3600, 15)])

    assert pair.rolled.connection.execute("SELECT count(*) FROM stale").fetchall() == [(0,)]
    pair.roll()
    assert_agree(pair, 300)


def test_five_minutes_of_many_nodes_are_made_some_nodes_at_once(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is loaded meanwhile, so a piece has a bound in rows, and not in time alone."""
    monkeypatch.setattr(rolling, "MOST_ROWS", 100)
    nodes = [f"n{number}" for number in range(7)]
    for node in nodes:
        pair.write([reading(second) for second in range(3300, 4200, 7)], node)
    made, has_more = [0, 0], True
    while has_more:
        has_more = pair.rolled.roll()
        before, made = made, rows(pair.rolled)
        assert made[0] - before[0] <= 2
        assert made[1] - before[1] <= 2
        for node in nodes:
            for step in (300, 3600):
                span = (at(3000), at(4800), step, node)
                theirs = asked(pair.plain, "tunnel", *span)
                assert_same(asked(pair.rolled, "tunnel", *span), theirs)

    assert made == [2 * len(nodes), len(nodes)]


def test_an_hour_of_many_nodes_is_made_some_nodes_at_once_also_of_those_that_are_silent_since(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "MOST_ROWS", 20)
    nodes = [f"n{number}" for number in range(7)]
    for number, node in enumerate(nodes):
        pair.write([reading(second) for second in range(0, 900 + 300 * number, 60)], node)
    pair.write([reading(4200)])
    pair.roll()

    assert rows(pair.rolled)[1] == len(nodes)
    for node in nodes:
        span = (at(0), at(3600), 3600, node)
        assert_same(asked(pair.rolled, "tunnel", *span), asked(pair.plain, "tunnel", *span))


def test_hours_of_many_nodes_are_made_again_some_nodes_at_once_after_late_points(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [f"n{number}" for number in range(7)]
    for node in nodes:
        pair.write([reading(second) for second in range(0, 7200, 60)], node)
    pair.roll()
    for node in nodes:
        pair.write([reading(31)], node)
    monkeypatch.setattr(rolling, "MOST_ROWS", 100)
    left = [stale(pair)]
    while left[-1]:
        pair.rolled.roll(at(0))
        left.append(stale(pair))

    assert left == [7, 2, 0], "each has 6 readings and 12 rollups"
    for node in nodes:
        span = (at(0), at(3600), 3600, node)
        assert_same(asked(pair.rolled, "tunnel", *span), asked(pair.plain, "tunnel", *span))


def test_a_node_with_more_readings_than_fit_into_memory_stops_no_other(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "MOST_ROWS", 50)
    monkeypatch.setattr(rolling, "MOST_OF_A_NODE", 100)
    pair.write([reading(second) for second in range(0, 300, 2)], "mad")
    pair.write([reading(second) for second in range(0, 900, 60)])
    pair.roll()

    assert stale(pair) == 0
    assert_agree(pair, 300)


def test_a_late_point_of_a_time_that_is_gone_is_rolled_up_where_there_was_nothing(
    pair: Pair,
) -> None:
    """As what comes after a clock of the server that was years ahead was set right."""
    pair.write([reading(second) for second in range(0, HOURS * 3600, 60) if second // 300 != 15])
    pair.expire(at(3 * 3600 + 100))
    pair.write([reading(second) for second in range(4500, 4800, 60)])
    pair.roll()

    assert_agree(pair, 300)
    assert stale(pair) == 0


def test_what_comes_after_clocks_that_were_years_ahead_is_rolled_up_too(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, "_REDO_SECONDS", 0.0)
    ahead = timedelta(days=3000).total_seconds()
    pair.write([reading(ahead), reading(ahead + 900)])
    while pair.rolled.roll():
        pass
    pair.write([reading(second) for second in range(0, 3600, 60)])
    while pair.rolled.roll():
        pass

    assert stale(pair) == 0
    assert_agree(pair, 300)


def test_the_hours_of_rollups_whose_five_minutes_expire_stay_whole(pair: Pair) -> None:
    pair.write([reading(second) for second in range(3600, HOURS * 3600, 60) if second // 300 != 19])
    pair.roll()
    pair.rolled.expire_rollups(at(5000))
    pair.write([reading(5750)])
    pair.roll()

    span = (at(3600), at(HOURS * 3600), 3600)
    assert_same(asked(pair.rolled, "tunnel", *span), asked(pair.plain, "tunnel", *span))


def test_rollups_of_a_time_that_is_over_lie_together_with_those_of_their_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup_order, "MOST_ROWS", 2 * 72)
    pair, nodes, noon = Pair(tmp_path), [f"n{number}" for number in range(5)], 2 * 3600
    for node in nodes:
        pair.write([reading(second) for second in range(0, noon - 300, 60)], node)
    pair.roll()
    scattered = places(pair, at(noon))
    for node in nodes:
        pair.write([reading(second) for second in range(noon - 300, 3 * 3600, 60)], node)
    pair.roll()
    together = places(pair, at(noon))
    pair.write([reading(noon - 1)], nodes[0])
    pair.roll()

    assert together == sorted(together) != scattered
    assert len(together) == len(nodes) * 24
    assert len(places(pair, at(noon))) == len(together)
    for node in nodes:
        for step in (300, 3600):
            span = (at(0), at(3 * 3600), step, node)
            assert_same(asked(pair.rolled, "tunnel", *span), asked(pair.plain, "tunnel", *span))
    pair.close()


def test_an_order_that_was_not_finished_is_begun_again(
    pair: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollup_order, "MOST_ROWS", 1)
    for number in range(3):
        pair.write([reading(second) for second in range(0, 3 * 3600, 60)], f"n{number}")
    pair.close()
    with closing(opened(tmp_path / "a.duckdb")) as first:
        steps = [first.roll() for _ in range(4)]
    assert all(steps)
    with closing(opened(tmp_path / "a.duckdb")) as second:
        while second.roll():
            pass
    pair.rolled, pair.plain = (opened(tmp_path / f"{name}.duckdb") for name in ("a", "b"))

    together = places(pair, at(2 * 3600))
    assert together == sorted(together)
    assert len(together) == 3 * 24


def places(pair: Pair, before: datetime) -> list[tuple[int, datetime]]:
    """The series and starts of five minutes, as they lie."""
    query = "SELECT series, start FROM rollups_5m_tunnel WHERE start < ? ORDER BY rowid"
    cursor = pair.rolled.connection.execute(query, [before.replace(tzinfo=None)])
    return cursor.fetchall()


def stale(pair: Pair) -> int:
    return int(pair.rolled.connection.execute("SELECT count(*) FROM stale").fetchall()[0][0])

"""Sessions of browsers survive a restart, and end."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from plexd.metrics.testing import ManualClock
from plexd_server.registry import Registry, Session, hash_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WHOSE = Session("operator", "operator")
DAY = timedelta(days=1)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(tmp_path: Path, clock: ManualClock) -> Iterator[Registry]:
    with closing(Registry(tmp_path, clock=clock)) as made:
        yield made


def is_there(registry: Registry, cookie: str) -> bool:
    return registry.sessions.find(hash_token(cookie)) == WHOSE


def test_a_session_survives_a_restart_and_only_its_hash_is_kept(
    registry: Registry, tmp_path: Path, clock: ManualClock
) -> None:
    cookie = registry.sessions.begin(WHOSE)
    registry.close()

    with closing(Registry(tmp_path, clock=clock)) as again:
        assert is_there(again, cookie)
        assert not is_there(again, cookie[:-1])
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert cookie.encode() not in kept


def test_a_session_that_was_ended_stays_ended_and_others_go_on(registry: Registry) -> None:
    one, two = registry.sessions.begin(WHOSE), registry.sessions.begin(WHOSE)

    for _ in range(2):
        registry.sessions.end(hash_token(one))

    assert [is_there(registry, one), is_there(registry, two)] == [False, True]


def test_a_session_ends_after_a_week_without_use_and_after_a_month_with_use(
    registry: Registry, clock: ManualClock
) -> None:
    used, unused = registry.sessions.begin(WHOSE), registry.sessions.begin(WHOSE)
    for _ in range(29):
        clock.step(DAY)
        assert is_there(registry, used)
    assert not is_there(registry, unused)

    clock.step(DAY)

    assert not is_there(registry, used)


def test_a_clock_that_was_wrong_for_a_while_logs_nobody_out(
    registry: Registry, clock: ManualClock
) -> None:
    cookie = registry.sessions.begin(WHOSE)
    for years in (30, -60, 30):
        clock.step(timedelta(days=365 * years))
        is_there(registry, cookie)

    assert is_there(registry, cookie)


def test_sessions_are_bounded_and_the_ones_unused_for_longest_go(
    registry: Registry, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plexd_server.registry.sessions._MOST", 3)
    first, second = registry.sessions.begin(WHOSE), registry.sessions.begin(WHOSE)
    clock.step(2 * timedelta(hours=1))
    assert is_there(registry, first)  # used again
    others = [registry.sessions.begin(WHOSE) for _ in range(2)]

    assert [is_there(registry, cookie) for cookie in (first, *others)] == [True] * 3
    assert not is_there(registry, second)


def test_another_login_token_in_the_operators_file_ends_all_sessions(registry: Registry) -> None:
    registry.end_sessions_of_another(b"1" * 32)
    cookie = registry.sessions.begin(WHOSE)

    registry.end_sessions_of_another(b"1" * 32)
    assert is_there(registry, cookie)
    registry.end_sessions_of_another(b"2" * 32)
    assert not is_there(registry, cookie)


def test_a_backup_brings_no_session_back(registry: Registry, tmp_path: Path) -> None:
    cookie = registry.sessions.begin(WHOSE)
    (tmp_path / "backup").mkdir()
    registry.backup_to(tmp_path / "backup")

    assert is_there(registry, cookie)
    with closing(Registry(tmp_path / "backup", clock=ManualClock())) as copy:
        assert not is_there(copy, cookie)

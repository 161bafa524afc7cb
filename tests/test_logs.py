from __future__ import annotations

import errno
import json
import logging
import os
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.api import Secret
from plexd.logs import (
    JSONFormatter,
    LogfmtFormatter,
    StderrHandler,
    fields,
    setup_logging,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("_process_state")

_PAIR = re.compile(r'([A-Za-z0-9_.-]+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)(?: |$)')


def record(message: str = "hello", *args: object, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("plexd.test", logging.INFO, "", 0, message, args, None)
    made.created = 1_770_894_600.123
    vars(made).update(extra)
    return made


def read_logfmt(line: str) -> dict[str, str]:
    pairs = list(_PAIR.finditer(line))
    assert "".join(pair[0] for pair in pairs) == line
    assert len({pair[1] for pair in pairs}) == len(pairs)
    return {
        pair[1]: str(json.loads(pair[2])) if pair[2].startswith('"') else pair[2] for pair in pairs
    }


def as_written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class Unprintable:
    def __str__(self) -> str:
        raise RuntimeError("no text today")


def test_a_line_holds_time_level_message_and_the_extra_fields_in_order() -> None:
    line = LogfmtFormatter().format(
        record("local endpoint enabled", component="metrics", url="https://a/b", points=3)
    )
    assert line == (
        'time=2026-02-12T11:10:00.123Z level=info msg="local endpoint enabled" '
        "component=metrics url=https://a/b points=3"
    )


def test_the_same_line_as_json() -> None:
    line = JSONFormatter().format(record("é", component="metrics", points=3, late=True))
    assert line == (
        '{"time": "2026-02-12T11:10:00.123Z", "level": "info", "msg": "\\u00e9", '
        '"component": "metrics", "points": 3, "late": true}'
    )


def test_an_event_without_a_component_names_its_logger() -> None:
    assert fields(record())["logger"] == "plexd.test"
    assert "logger" not in fields(record(component="metrics"))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (True, "true"),
        (1.5, "1.5"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (timedelta(seconds=90), "1m30s"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        (ValueError("bad\nthing"), '"bad\\nthing"'),
        (TimeoutError(), "TimeoutError"),
        (Secret("hunter2"), "[redacted]"),
        ({"token": Secret("hunter2")}, "\"{'token': '[redacted]'}\""),
        ("", '""'),
        ('a "b" c=d', '"a \\"b\\" c=d"'),
        ("é", '"é"'),
        ("\x1b[31m\u2028\ud800", '"\\u001b[31m\\u2028\\ud800"'),
        ("\x9b2J\x85", '"\\u009b2J\\u0085"'),
        ("gnp\u202eexe.\u2066\u200f", '"gnp\\u202eexe.\\u2066\\u200f"'),
        (Unprintable(), '"<Unprintable>"'),
    ],
)
def test_every_value_has_a_form_on_the_line(value: object, written: str) -> None:
    line = LogfmtFormatter().format(record(component="x", value=value))
    assert line.endswith(f" component=x value={written}")
    assert "\n" not in JSONFormatter().format(record(value=value))


def test_a_secret_stays_redacted_wherever_it_is_logged() -> None:
    secret = Secret("hunter2")
    made = record("token %s", secret, token=secret, several=[secret])
    for formatter in (LogfmtFormatter(), JSONFormatter()):
        assert "hunter2" not in formatter.format(made)


def test_a_message_whose_arguments_do_not_fit_is_logged_all_the_same() -> None:
    assert fields(record("%d points", "many"))["msg"] == "%d points ('many',)"


def test_a_value_without_end_is_cut() -> None:
    assert len(LogfmtFormatter().format(record("x" * 10**6, value="y" * 10**6))) < 40_000


def test_names_that_clash_or_would_break_the_line_are_changed() -> None:
    extra: dict[str, Any] = {"level": 1, "a b": 2, "a_b": 3, "": 4, "x=\n": 5}
    found = fields(record(**extra))
    assert list(found) == ["time", "level", "msg", "level_", "a_b", "a_b_", "_", "x__", "logger"]


@pytest.fixture
def _debugging() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.DEBUG)
    yield
    root.setLevel(before)


def _failed() -> logging.LogRecord:
    made = record(component="x")
    try:
        raise ValueError("line one\nline two")  # noqa: TRY301 - an exception with a traceback
    except ValueError as err:
        made.exc_info = (type(err), err, err.__traceback__)
    return made


def test_an_exception_is_one_field() -> None:
    assert fields(_failed())["error"] == "ValueError: line one\nline two"
    assert "traceback" not in fields(_failed())
    assert "\n" not in LogfmtFormatter().format(_failed())


def test_an_error_that_was_given_is_kept() -> None:
    made = _failed()
    made.error = "mine"
    assert fields(made)["error"] == "mine"


@pytest.mark.usefixtures("_debugging")
def test_a_traceback_is_for_debugging_only_and_stays_on_the_line() -> None:
    line = LogfmtFormatter().format(_failed())
    assert "Traceback (most recent call last)" in read_logfmt(line)["traceback"]


_VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary())
_RESERVED = frozenset(vars(record())) | {"message", "asctime", "taskName"}


@given(
    st.text(),
    st.dictionaries(st.text().filter(lambda name: name not in _RESERVED), _VALUES, max_size=6),
)
def test_any_event_is_exactly_one_line_that_reads_back(
    message: str, extra: dict[str, object]
) -> None:
    made = record(message.replace("%", "%%"), **extra)
    expected = {name: as_written(value) for name, value in fields(made).items()}
    line = LogfmtFormatter().format(made)
    assert line.isprintable()
    assert read_logfmt(line) == expected
    line = JSONFormatter().format(made)
    assert line.isprintable()
    assert {name: as_written(value) for name, value in json.loads(line).items()} == expected


def test_logging_goes_to_standard_error_once_however_often_it_is_set_up(
    capfd: pytest.CaptureFixture[str],
) -> None:
    setup_logging("info", "json")
    setup_logging("warning", "logfmt")
    logging.getLogger("plexd").info("quiet")
    logging.getLogger("plexd").warning("loud")
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "level=warning msg=loud" in err


def test_json_is_chosen_by_name(capfd: pytest.CaptureFixture[str]) -> None:
    setup_logging("info", "json")
    logging.getLogger("plexd").info("hello")
    assert json.loads(capfd.readouterr().err)["msg"] == "hello"


def _handler(descriptor: int) -> StderrHandler:
    handler = StderrHandler(descriptor)
    handler.setFormatter(LogfmtFormatter())
    return handler


def test_a_closed_descriptor_loses_the_line_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    _handler(writing).emit(record())  # EPIPE
    os.close(writing)
    _handler(writing).emit(record())  # EBADF
    assert capsys.readouterr() == ("", "")


def test_a_full_disk_loses_the_line_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    _handler(descriptor).emit(record())
    os.close(descriptor)
    assert capsys.readouterr() == ("", "")


def test_a_line_that_got_through_in_part_does_not_swallow_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = bytearray()
    room = [10]

    def write(_: int, data: bytes) -> int:
        taken = bytes(data)[: room[0]]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.extend(taken)
        room[0] -= len(taken)
        return len(taken)

    handler = _handler(2)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        handler.emit(record("first"))
        room[0] = 1000
        handler.emit(record("second"))
        handler.emit(record("third"))
    lines = bytes(written).decode().splitlines()
    assert [line.rpartition("msg=")[2].split()[0] for line in lines[1:]] == ["second", "third"]
    assert lines[0] == "time=2026-"


def test_times_are_in_utc() -> None:
    moment = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    made = record()
    made.created = moment.timestamp()
    assert fields(made)["time"] == "2026-01-01T00:00:00.000Z"

"""The log of both programs: one line an event on standard error, as logfmt or JSON.

A line holds ``time`` (RFC 3339, UTC, milliseconds), ``level``, ``msg`` and then the fields of
``extra`` in the order they were given; an exception becomes ``error``, and at level debug
``traceback`` as well. ``component`` is the part that logs; without one, ``logger`` says whose event
it is. No value can break the line or forge another one, and a `plexd.api.Secret` stays redacted.

Logging never fails: a closed, full or broken standard error loses lines, not the program.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import traceback
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from plexd.text import printable
from plexd.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

_STDERR = 2
_LONGEST = 16_384
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_UNSAFE_IN_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_BARE = re.compile(r"[A-Za-z0-9_.:/@+,;%~?&()\[\]-]+", re.ASCII)


def setup_logging(
    level: str,
    format: Literal["logfmt", "json", "sentence"] | str,  # noqa: A002, PYI051 - the setting's name
    levels: Mapping[str, str] = MappingProxyType({}),
    *,
    tracebacks: bool = False,
) -> None:
    """Log everything from ``level`` on (debug, info, warning, error) to standard error.

    ``sentence`` is for commands at a terminal, whose warnings are no lines of a log.
    ``levels`` are the levels of single loggers, by name. An error has its traceback only at level
    debug, or with ``tracebacks``. A second call replaces level and form, and never doubles a line.
    """
    root = logging.getLogger()
    for handler in [found for found in root.handlers if isinstance(found, StderrHandler)]:
        root.removeHandler(handler)
    handler = StderrHandler()
    form = _FORMS.get(format, LogfmtFormatter)
    handler.setFormatter(form(tracebacks=tracebacks))
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name, other in levels.items():
        logging.getLogger(name).setLevel(other.upper())


class StderrHandler(logging.Handler):
    """Writes whole lines to a file descriptor, unbuffered as in `plexd.console`; never raises."""

    def __init__(self, descriptor: int = _STDERR) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line; a line written in part is ended before the next one."""
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
            self._write(b"\n" + line if self._torn else line)
        except Exception:  # noqa: BLE001 - a log line is never worth the program
            self.handleError(record)

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
            self._torn = bool(rest)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Do nothing: there is no other place to report to."""


class _LineFormatter(logging.Formatter):
    def __init__(self, *, tracebacks: bool = False) -> None:
        super().__init__()
        self._tracebacks = tracebacks


class LogfmtFormatter(_LineFormatter):
    """``time=... level=info msg="..." component=metrics``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a value is quoted, with JSON's escapes, if it could be misread bare."""
        found = fields(record, tracebacks=self._tracebacks)
        return " ".join(f"{name}={_logfmt(value)}" for name, value in found.items())


class JSONFormatter(_LineFormatter):
    """One JSON object an event."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII; numbers and booleans keep their type."""
        return json.dumps(fields(record, tracebacks=self._tracebacks))


class SentenceFormatter(_LineFormatter):
    """``plexd: warning: EVENT: what went wrong``, as a command complains."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, without the other fields."""
        found = fields(record)
        parts = ("plexd", found["level"], found["msg"], found.get("error"))
        return printable(": ".join(str(part) for part in parts if part))


_FORMS = {"json": JSONFormatter, "sentence": SentenceFormatter}


def fields(
    record: logging.LogRecord, *, tracebacks: bool = False
) -> dict[str, str | int | float | bool | None]:
    """The fields of a line, in order. Names are unique and plain, values are scalars."""
    found: dict[str, Any] = {
        "time": _time(record.created),
        "level": record.levelname.lower(),
        "msg": _message(record),
    }
    if record.name.partition(".")[0] == "plexd_server" and not hasattr(record, "component"):
        found["component"] = "server"
    for name, value in vars(record).items():
        if name not in _STANDARD:
            found[_name(name, found)] = _scalar(value)
    if "component" not in found:  # a library's event: say whose
        found["logger"] = _scalar(record.name)
    return found | _exception(record, found, tracebacks=tracebacks)


def _time(created: float) -> str:
    stamp = datetime.fromtimestamp(created, UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - wrong arguments must not lose the event
        text = f"{record.msg} {record.args!r}"
    return _cut(text)


def _name(name: str, used: dict[str, Any]) -> str:
    plain = _UNSAFE_IN_NAME.sub("_", str(name)) or "_"
    while plain in used:
        plain += "_"
    return plain


def _scalar(value: object) -> str | int | float | bool | None:
    """``value`` as JSON can hold it. Containers become text, and secrets in them stay redacted."""
    if value is None or type(value) in {bool, int}:
        return value  # type: ignore[return-value]  # the line above made sure
    if type(value) is float and math.isfinite(value):
        return value
    try:
        return _cut(_as_text(value))
    except Exception:  # noqa: BLE001 - a broken __str__ must not lose the event
        return f"<{type(value).__name__}>"


def _as_text(value: object) -> str:
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, BaseException):
        return str(value) or type(value).__name__
    return str(value)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _exception(
    record: logging.LogRecord, used: dict[str, Any], *, tracebacks: bool
) -> dict[str, str]:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return {}
    found = {} if "error" in used else {"error": f"{type(error).__name__}: {error}"}
    if tracebacks or logging.getLogger().isEnabledFor(logging.DEBUG):
        found[_name("traceback", used)] = "".join(traceback.format_exception(error))
    return {name: _cut(text) for name, text in found.items()}


def _logfmt(value: str | float | bool | None) -> str:
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    if _BARE.fullmatch(value):
        return value
    # Escaped as in JSON; text with an unprintable character becomes pure ASCII.
    return json.dumps(value, ensure_ascii=not value.isprintable())

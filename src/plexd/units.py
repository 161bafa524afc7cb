"""Durations and sizes as people write them: ``1m30s``, ``256MiB``."""

from __future__ import annotations

import re
from datetime import timedelta

# Eight digits keep every sum within what a timedelta holds, and four of years.
_NUMBER = r"\d{1,8}(?:\.\d{1,6})?"
_YEARS = r"\d{1,4}(?:\.\d{1,6})?"
_YEAR = timedelta(days=365)
_DURATION = re.compile(
    rf"(?:(?P<years>{_YEARS})y)?(?:(?P<weeks>{_NUMBER})w)?(?:(?P<days>{_NUMBER})d)?(?:(?P<hours>{_NUMBER})h)?(?:(?P<minutes>{_NUMBER})m(?!s))?"
    rf"(?:(?P<seconds>{_NUMBER})s)?(?:(?P<milliseconds>{_NUMBER})ms)?",
    re.ASCII,
)
_UNITS = {
    spelling: unit
    for unit, spellings in {
        "ms": "ms msec msecs millisecond milliseconds",
        "s": "s sec secs second seconds",
        "m": "m min mins minute minutes",
        "h": "h hr hrs hour hours",
        "d": "d day days",
        "w": "w week weeks",
        "y": "y yr yrs year years",
    }.items()
    for spelling in spellings.split()
}
_SPELT = re.compile(rf"({_NUMBER}) ?([a-z]+) ?", re.ASCII | re.IGNORECASE)
_LONGEST_HINT = 60  # more than this is no slip of the pen
_MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000}

_SIZE = re.compile(r"(\d{1,15}) ?(B|[KMGT]i?B)?", re.ASCII)
_BINARY = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | _BINARY
_SHORT_SIZE = re.compile(r"(\d{1,15}) ?([kKmMgGtT])[iI]?[bB]?", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Parse years to milliseconds, largest first, each at most once: ``7d``, ``1m30s``, ``500ms``.

    A year has 365 days.

    Raises `ValueError`, with a hint for what is nearly a duration: ``15``, ``15 s``, ``15sec``.
    """
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise ValueError(_duration_hint(text))
    counts = {unit: float(count) for unit, count in match.groupdict("0").items()}
    return _YEAR * counts.pop("years") + timedelta(**counts)


def _duration_hint(text: str) -> str:
    """The duration that ``text`` seems to mean, as it is written; or nothing."""
    if len(text) > _LONGEST_HINT:
        return ""
    if re.fullmatch(_NUMBER, text, re.ASCII):
        return f"write {text}s"
    meant = _SPELT.sub(_abbreviated, text.strip())
    return f"write {meant}" if meant != text and _DURATION.fullmatch(meant) and meant else ""


def _abbreviated(part: re.Match[str]) -> str:
    unit = _UNITS.get(part[2].lower())
    return f"{part[1]}{unit}" if unit else part[0]


def format_duration(value: timedelta) -> str:
    """The shortest form `parse_duration` reads back as ``value``."""
    rest = abs(value) // timedelta(microseconds=1)
    parts = ["-"] if value < timedelta(0) else []
    for unit, size in _MICROSECONDS.items():
        count, rest = divmod(rest, size)
        parts += [f"{count}{unit}"] if count else []
    parts += [f"{rest / 1000:g}ms"] if rest else []
    return "".join(parts) or "0s"


def parse_size(text: str) -> int:
    """Parse a number of bytes, with or without a unit: ``256MiB``, ``10MB``, ``65536``.

    Raises `ValueError` with a hint for the abbreviations that mean two things (``256M``).
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        short = _SHORT_SIZE.fullmatch(text)
        raise ValueError(f"write {short[1]}{short[2].upper()}iB" if short else "")
    return int(match[1]) * _BYTES[match[2] or "B"]


def format_size(value: int) -> str:
    """The exact size in the largest binary unit that divides it: ``256MiB``, ``1000``."""
    for unit, size in _BINARY.items():
        if value and value % size == 0:
            return f"{value // size}{unit}"
    return str(value)


def round_size(value: int) -> str:
    """``value`` bytes, rounded, in the unit that makes it short: ``23.5 GiB``."""
    count = float(value)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if round(count) < 1024:
            return f"{count:.1f} {unit}" if unit != "B" and count < 100 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} EiB"

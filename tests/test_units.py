from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd.units import format_duration, format_size, parse_duration, parse_size, round_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15),
        ("1m30s", 90),
        ("500ms", 0.5),
        ("7d", 604800),
        ("1w1d", 691200),
        ("1.5s", 1.5),
        ("1h1ms", 3600.001),
    ],
)
def test_a_duration_is_read_with_its_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", " ", "s", "1s1m", "1s1s", "-1s", "1 month", "\uff11s", "1e3s", "1s1w", "1s" * 40]
)
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("15", "15s"),
        ("15 s", "15s"),
        (" 15s", "15s"),
        ("15S", "15s"),
        ("15sec", "15s"),
        ("2 minutes", "2m"),
        ("1h 30 min", "1h30m"),
        ("500 msec", "500ms"),
        ("2 Weeks", "2w"),
    ],
)
def test_a_near_duration_has_a_hint_how_to_write_it(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"^write {hint}$"):
        parse_duration(text)


@given(st.text("0123456789. dhmswec-", max_size=70))
def test_a_hint_is_always_a_duration(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError as err:
        if str(err):
            parse_duration(str(err).removeprefix("write "))


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=36500)))
def test_a_duration_survives_being_written_and_read(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


def test_a_negative_duration_shows_its_sign() -> None:
    assert format_duration(timedelta(seconds=-90)) == "-1m30s"


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("65536", 65536), ("64KiB", 65536), ("10MB", 10**7), ("1 GiB", 2**30), ("9B", 9)],
)
def test_a_size_is_read_with_its_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "hint"), [("256M", "write 256MiB"), ("1gb", "write 1GiB"), ("2 k", "write 2KiB")]
)
def test_an_ambiguous_size_has_a_hint_how_to_write_it(text: str, hint: str) -> None:
    with pytest.raises(ValueError, match=f"^{hint}$"):
        parse_size(text)


@pytest.mark.parametrize("text", ["", "-1", "1.5GiB", "MiB", "1PiB", "1" * 16])
def test_anything_else_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=10**15 - 1))
def test_a_size_survives_being_written_and_read(value: int) -> None:
    assert parse_size(format_size(value)) == value


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (2**20 - 1, "1.0 MiB"),
        (1023 * 1024, "1023 KiB"),
        (2**60 - 1, "1.0 EiB"),
    ],
)
def test_a_size_is_rounded_before_its_unit_is_chosen(size: int, text: str) -> None:
    assert round_size(size) == text

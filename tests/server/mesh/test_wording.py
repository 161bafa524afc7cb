from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plexd_server.mesh.wording import number, seconds, size


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1023.9, "1 KiB"),
        (2**20 - 1, "1 MiB"),
        (1434, "1.4 KiB"),
        (2**60 - 1, "1 EiB"),
    ],
)
def test_a_size_is_rounded_before_its_unit_is_chosen(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1, "0 s"),
        (180, "180 s"),
        (181, "3 min"),
        (3569, "59 min"),
        (3580, "1 h 0 min"),
        (7500, "2 h 5 min"),
        (86_399, "1 d 0 h"),
        (97_200, "1 d 3 h"),
    ],
)
def test_a_length_of_time_is_rounded_before_its_units_are_chosen(value: float, text: str) -> None:
    assert seconds(value) == text


@given(st.floats(0, 1e9))
def test_no_length_of_time_is_sixty_of_a_unit(value: float) -> None:
    assert not re.search(r"\b(60 min|24 h)$", seconds(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.004, "0"), (3, "3"), (99.96, "100"), (100.4, "100"), (7.5, "7.5")],
)
def test_a_number_has_about_three_digits(value: float, text: str) -> None:
    assert number(value) == text
